"""Attention while a model writes its answer, as a map: blank where it is exactly zero."""

import argparse
from typing import Any, List, Optional

from fairseq_entmax.analysis.attention import KINDS, Weights, attention_weights, chosen
from fairseq_entmax.analysis.opened import Line, Opened
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
    found: List[Panel] = []
    for opened in models:
        weights = attention_weights(opened.models, opened.sample([line]), target)
        found += _panels(weights, args, opened.name if len(models) > 1 else "")
    source, written = shared.labels(line.symbols), shared.labels(models[0].written(target))
    picture = alignment_picture(found, args.kind, source, written, 4 if args.grid else 2)
    numbers = {
        "source": [*line.symbols, END],
        "target": [*models[0].written(target), END],
        "kind": args.kind,
        "maps": [panel._asdict() for panel in found],
    }
    shared.finish(args, picture, numbers)


def _panels(weights: List[Weights], args: argparse.Namespace, name: str) -> List[Panel]:
    if args.grid:
        layers = [w for w in weights if w.kind == chosen(weights, args.kind)[0].kind]
        if args.layer is not None:
            layers = chosen(weights, args.kind, args.layer)
        return [_panel(w, head, name) for w in layers for head in range(1, len(w.heads) + 1)]
    (layer,) = chosen(weights, args.kind, args.layer)
    if layer.gate is not None and args.head is None:
        both = [_panel(layer, head, name) for head in (1, 2)]
        return [*both, _panel(layer, None, name)]
    return [_panel(layer, args.head, name)]


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


def cross_panels(opened: Opened, line: Line, target: Any) -> List[Panel]:
    """The last cross-attention, as the command draws it without further options."""
    weights = attention_weights(opened.models, opened.sample([line]), target)
    options = argparse.Namespace(grid=False, kind="cross", layer=None, head=None)
    return _panels(weights, options, "")
