"""A metric and the support against alpha, from the runs of scripts/sweep_alpha.py."""

import argparse
from pathlib import Path
from typing import Any, Dict, List

from fairseq_entmax.analysis.pictures import Picture
from fairseq_entmax.analysis.pictures.lines import Panel, Series, panels
from fairseq_entmax.analysis.sweeps import Spread, figures_of, read_sweep, spreads

from . import shared

_UNITS = {
    "support": "words with p > 0",
    "gold_in_support": "share of gold words with p > 0",
    "words_per_second": "words a second",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("sweep", __doc__, "sweep/sweep.json --out sweep.svg")
    made.add_argument("file", type=Path, help="sweep.json, or the --out of scripts/sweep_alpha.py")
    made.add_argument(
        "--figures", nargs="+", default=["bleu", "support"], help="(default: bleu support)"
    )
    shared.add_picture(made)
    return made


def main(arguments: List[str]) -> None:
    """Draws a panel for each figure."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    rows = read_sweep(args.file)
    found = {figure: spreads(rows, figure) for figure in args.figures}
    seeds = sorted({row["seed"] for row in rows})

    def draw(theme: Any) -> Any:
        return panels([_panel(name, curves) for name, curves in found.items()], theme)

    text = (
        f"{' and '.join(args.figures)} against the alpha of the output, a line for each alpha of "
        f"the attention; means over the seeds {' '.join(map(str, seeds))}, shaded from the least "
        "to the most."
    )
    numbers = {"figures": found, "seeds": seeds, "has": figures_of(rows)}
    shared.finish(args, Picture(draw, "Sweep over alpha", text), numbers)


def _panel(figure: str, curves: Dict[float, List[Spread]]) -> Panel:
    series = [
        Series(
            f"attention \u03b1 = {attention:g}",
            [(s.alpha, s.mean) for s in found],
            [(s.least, s.most) for s in found] if max(s.seeds for s in found) > 1 else None,
            style=i,
        )
        for i, (attention, found) in enumerate(curves.items())
    ]
    unit = _UNITS.get(figure, figure.upper() if figure == "bleu" else figure)
    return Panel(figure.replace("_", " "), "output \u03b1", unit, series, log=figure == "support")
