"""Attention while a model writes its answer, as a map: blank where it is exactly zero."""

import argparse
from typing import Any, List, NamedTuple, Optional

from fairseq_entmax.analysis.attention import KINDS, Weights, attention_weights, chosen
from fairseq_entmax.analysis.pictures import Picture
from fairseq_entmax.analysis.pictures.heat import Panel, heat_maps
from fairseq_entmax.analysis.segmentation import joined
from fairseq_entmax.analysis.trees import END

from . import shared

_EXAMPLE = f'{shared.DEMO} --input "Haus <de> <N> <neut> <dat> <pl>" --out alignment.svg'
_AXES = {  # what attends, and to what
    "cross": ("target", "source"),
    "encoder": ("source", "source"),
    "decoder": ("to be written", "written before"),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("alignment", __doc__, _EXAMPLE)
    shared.add_models(made, "a second one is drawn beside the first, for the same target")
    shared.add_input(made)
    made.add_argument("--kind", choices=KINDS, default="cross", help="(default: cross)")
    made.add_argument("--layer", type=int, help="from 1 on (default: the last)")
    made.add_argument("--head", type=int, help="from 1 on (default: the mean of the heads)")
    made.add_argument("--grid", action="store_true", help="every layer and head, a map each")
    made.add_argument("--force-reference", action="store_true", help="write the reference")
    shared.add_picture(made)
    return made


def main(arguments: List[str]) -> None:
    """Draws one sentence."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    models = shared.open_models(args)
    line = shared.read_line(args, models[0])
    if args.force_reference and line.target is None:
        raise ValueError("--force-reference needs a sentence of a subset: drop --input")
    target = line.target if args.force_reference else models[0].answer(line)
    choice = Choice(args.kind, args.layer, args.head, args.grid)
    found: List[Panel] = []
    for opened in models:
        weights = attention_weights(opened.models, opened.sample([line]), target)
        found += panels_of(weights, choice, opened.name if len(models) > 1 else "")
    source, written = shared.labels(line.symbols), shared.labels(models[0].written(target))
    picture = alignment_picture(found, args.kind, source, written, 4 if args.grid else 2)
    numbers = {
        "source": [*line.symbols, END],
        "target": [*models[0].written(target), END],
        "kind": args.kind,
        "maps": [panel._asdict() for panel in found],
    }
    shared.finish(args, picture, numbers)


class Choice(NamedTuple):
    """Which attention to draw; None is the last layer and the mean of the heads, ``grid`` a map for
    every layer (or this one) and head.
    """

    kind: str = "cross"
    layer: Optional[int] = None
    head: Optional[int] = None
    grid: bool = False


def panels_of(
    weights: List[Weights],
    choice: Choice = Choice(),  # noqa: B008
    name: str = "",
) -> List[Panel]:
    """The maps of one model; of two heads with a gate both, and what comes of them.

    Raises:
        ValueError: the model has no such attention.
    """
    (layer,) = chosen(weights, choice.kind, choice.layer)
    if choice.grid:
        layers = [w for w in weights if w.kind == choice.kind] if choice.layer is None else [layer]
        return [_panel(w, head, name) for w in layers for head in range(1, len(w.heads) + 1)]
    if layer.gate is not None and choice.head is None:
        return [_panel(layer, head, name) for head in (1, 2, None)]
    return [_panel(layer, choice.head, name)]


def _panel(weights: Weights, head: Optional[int], name: str) -> Panel:
    """A head by its name, or all of them together."""
    several = "both heads" if weights.gate is not None else "mean of heads"
    probs = weights.head(head)
    which = several if head is None else weights.heads[head - 1]
    if len(weights.heads) == 1:
        which = ""
    title = ", ".join(filter(None, [name, f"{weights.kind} {weights.layer}", which]))
    gate = weights.gate.tolist() if weights.gate is not None and head is None else None
    return Panel(title, probs.tolist(), gate)


def alignment_picture(
    found: List[Panel], kind: str, source: List[str], target: List[str], across: int = 2
) -> Picture:
    """The maps of one sentence; labels without the end of the sentence, which is added."""
    sides = {"cross": (target, source), "encoder": (source, source), "decoder": (target, target)}
    rows, columns = ([*side, "end"] for side in sides[kind])
    if kind == "decoder":
        columns = ["start", *target]

    def draw(theme: Any) -> Any:
        return heat_maps(found, rows, columns, theme, _AXES[kind], across)

    share = _share_of_zeros(found)
    text = (
        f"Attention ({kind}) of {joined(target)} to {joined(source)}: {share:.0%} of the weights "
        "are exactly zero and blank."
    )
    return Picture(draw, f"Attention: {joined(source)}", text, [*source, *target])


def _share_of_zeros(found: List[Panel]) -> float:
    weights = [p for panel in found for row in panel.probs for p in row]
    return sum(p == 0 for p in weights) / len(weights)
