"""The paper's two figures: Tsallis entropies H_alpha([p, 1 - p]), and mappings [t, 0] -> p."""

import argparse
from typing import Any, Dict, List, Sequence, Tuple

from fairseq_entmax.analysis.mappings import check_alphas, entropies, mappings
from fairseq_entmax.analysis.pictures import Picture
from fairseq_entmax.analysis.pictures.lines import Panel, Series, panels

from . import shared

_NAMES = {1.0: "softmax", 2.0: "sparsemax"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("mapping", __doc__, "--alphas 1 1.25 1.5 2 4 --out mapping.svg")
    made.add_argument(
        "--alphas", type=float, nargs="+", default=[1.0, 1.25, 1.5, 2.0, 4.0], metavar="A"
    )
    shared.add_picture(made)
    return made


def main(arguments: List[str]) -> None:
    """Draws both figures beside each other."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    check_alphas(args.alphas)
    curves = entropies(args.alphas), mappings(args.alphas)

    def draw(theme: Any) -> Any:
        left = Panel("entropy H([p, 1 \u2212 p])", "p", "H", _series(curves[0]), markers=False)
        right = Panel("mapping of [t, 0]", "t", "p", _series(curves[1]), markers=False)
        return panels([left, right], theme)

    names = ", ".join(f"{alpha:g}" for alpha in args.alphas)
    picture = Picture(
        draw,
        "Entropies and mappings",
        f"Tsallis entropies of [p, 1-p] and alpha-entmax of [t, 0] for alpha {names}: above alpha "
        "1 the mapping reaches 0 and 1 at a finite t.",
    )
    shared.finish(args, picture, {"entropies": curves[0], "mappings": curves[1]})


def _series(curves: Dict[float, Sequence[Tuple[float, float]]]) -> List[Series]:
    return [
        Series(
            " ".join(filter(None, [f"\u03b1 = {alpha:g}", _NAMES.get(alpha)])),
            list(points),
            style=i,
        )
        for i, (alpha, points) in enumerate(curves.items())
    ]
