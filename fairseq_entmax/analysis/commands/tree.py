"""Every string that a sparse model allows for one input, as a tree."""

import argparse
import math
from typing import Any, Dict, List, Sequence

from fairseq_entmax.analysis.opened import Line, Opened
from fairseq_entmax.analysis.pictures import Picture
from fairseq_entmax.analysis.pictures.branches import Grove, trees
from fairseq_entmax.analysis.segmentation import joined
from fairseq_entmax.analysis.trees import layout, percent
from fairseq_entmax.decoding.report import search_tree, strings

from . import shared

_EXAMPLE = f'{shared.DEMO} --input "Haus <de> <N> <neut> <dat> <pl>" --out tree.svg'


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("tree", __doc__, _EXAMPLE)
    shared.add_models(made, "of others what beam search finds is drawn below")
    shared.add_input(made)
    made.add_argument("--strings", type=int, default=60, help="that many at most (default: 60)")
    made.add_argument(
        "--mass", type=float, default=1.0, help="stop when they have this probability (default: 1)"
    )
    made.add_argument("--beam", type=int, default=10, help="of other models (default: 10)")
    made.add_argument("--max-expansions", type=int, default=10000, help="(default: 10000)")
    shared.add_picture(made)
    return made


def main(arguments: List[str]) -> None:
    """Draws one sentence."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    for name in ("strings", "beam", "max_expansions"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
    if not 0 < args.mass <= 1:
        raise ValueError(f"--mass is a probability above 0, got {args.mass}")
    models = shared.open_models(args)
    line = shared.read_line(args, models[0])
    found = [models[0].exact(line, args.strings, args.mass, args.max_expansions)]
    found += [opened.beam(line, args.beam) for opened in models[1:]]
    groves = [
        grove(opened, hypotheses, line, opened.name if len(models) > 1 else "")
        for opened, hypotheses in zip(models, found)
    ]
    numbers = {
        "source": line.symbols,
        "models": [tree_numbers(opened, h) for opened, h in zip(models, found)],
    }
    shared.finish(args, tree_picture(groves, line), numbers)


def tree_numbers(opened: Opened, hypotheses: List[Dict[str, Any]]) -> Dict[str, Any]:
    """The strings, their tree and what is proven about them."""
    certificate = hypotheses[0]["certificate"]
    bound = certificate.bound if math.isfinite(certificate.bound) else None
    return {
        "model": opened.name,
        "certificate": {**certificate._asdict(), "bound": bound},
        "strings": strings(hypotheses, opened.target_words),
        "tree": search_tree(hypotheses, opened.target_words),
    }


def grove(opened: Opened, hypotheses: List[Dict[str, Any]], line: Line, name: str) -> Grove:
    """One tree with a title that says what it holds; the reference, if there is one, marked."""
    answer = [] if line.target is None else opened.written(line.target)
    branches = layout(search_tree(hypotheses, opened.target_words), answer)
    held = said(hypotheses)
    head = ": ".join(filter(None, [name, joined(line.symbols)]))
    return Grove(f"{head}  \u2014  {held}", branches)


def said(hypotheses: Sequence[Dict[str, Any]]) -> str:
    """What a list of hypotheses is."""
    certificate = hypotheses[0]["certificate"]
    n = sum(h["score"] > -math.inf for h in hypotheses)
    if certificate.complete:
        return "the only possible string" if n == 1 else f"all {n} possible strings"
    proven = f"the {n} most probable" if certificate.proven >= n else f"{n}"
    return f"{proven} strings, {percent(certificate.mass)} of the probability"


def tree_picture(groves: List[Grove], line: Line) -> Picture:
    """The trees of one sentence."""

    def draw(theme: Any) -> Any:
        return trees(groves, theme)

    leaves = [b for g in groves for b in g.branches if b.leaf is not None]
    leaves.sort(key=lambda b: -b.mass)
    listed = ", ".join(f"{b.leaf or '(empty)'} {percent(b.mass)}" for b in leaves[:10])
    labels = [text for g in groves for b in g.branches for text in (b.label, b.leaf or "")]
    source = joined(line.symbols)
    text = f"{' '.join(g.title for g in groves)}. {listed}"
    return Picture(draw, f"Tree of strings: {source}", text, [source, *labels])
