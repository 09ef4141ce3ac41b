"""How many tokens are possible and positions attended to: over a training, and over positions."""

import argparse
import math
import random
from pathlib import Path
from typing import Any, Dict, List

from fairseq_entmax.analysis.opened import Line, Opened
from fairseq_entmax.analysis.pictures import Picture
from fairseq_entmax.analysis.pictures.lines import Panel, Series, panels
from fairseq_entmax.analysis.supports import Counts, by_position, count, histogram
from fairseq_entmax.analysis.training import Curves, learned_alphas_of, read_training

from . import shared

_EXAMPLE = f"{shared.DEMO} --log demo/train.log --out support.svg"
_MOST_BARS = 30
_GROUPS = {"train": "training", "valid": "validation"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("support", __doc__, _EXAMPLE)
    shared.add_models(made)
    made.add_argument("--subset", default="test", help="of the data (default: test)")
    made.add_argument(
        "--sentences", type=int, default=100, help="drawn at random; 0: none (default: 100)"
    )
    made.add_argument("--seed", type=int, default=1, help="of the draw (default: 1)")
    made.add_argument(
        "--log",
        type=Path,
        nargs="+",
        default=[],
        help="log files of the training, or its --tensorboard-logdir",
    )
    shared.add_picture(made)
    return made


def main(arguments: List[str]) -> None:
    """Draws what the log and the sentences tell."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    if args.sentences < 0 or (args.sentences == 0 and not args.log):
        raise ValueError("nothing to count on: give --sentences, at least 1, or --log")
    curves = read_training(args.log)
    counts: List[Counts] = []
    if args.sentences:
        (opened,) = shared.open_models(args)[:1]
        counts = counts_of(opened, args.subset, args.sentences, args.seed)
    picture = support_picture(curves, counts, args.seed)
    numbers = {
        "training": {g: curves[g]["support"] for g in _GROUPS if "support" in curves.get(g, {})},
        "alphas": learned_alphas_of(curves),
        "positions": [p._asdict() for p in by_position(counts)] if counts else [],
        "counts": [c._asdict() for c in counts],
        "seed": args.seed,
    }
    shared.finish(args, picture, numbers)


def draw_lines(opened: Opened, subset: str, n: int, seed: int) -> List[Line]:
    """Some lines of a subset, at random, in the order of the data."""
    lines = opened.subset(subset)
    return [
        lines[i] for i in sorted(random.Random(seed).sample(range(len(lines)), min(n, len(lines))))
    ]


def counts_of(opened: Opened, subset: str, n: int, seed: int) -> List[Counts]:
    """The counts on some lines of a subset; those for which nothing is possible are left out."""
    lines = draw_lines(opened, subset, n, seed)
    found = [(line, answers[0]) for line, answers in zip(lines, opened.beams(lines, nbest=1))]
    alive = [(line, best) for line, best in found if best["score"] > -math.inf]
    return [
        count(opened, line, best["tokens"].cpu())
        for line, best in shared.progress(alive, "sentences", len(alive))
    ]


def support_picture(curves: Curves, counts: List[Counts], seed: int) -> Picture:
    """What there is of: the training, positions, a histogram, learned alphas."""
    found = [*_of_training(curves), *(_of_counts(counts) if counts else []), *_of_alphas(curves)]
    if not found:
        raise ValueError("the log has no support: train with --criterion entmax_loss")

    def draw(theme: Any) -> Any:
        return panels(found, theme)

    text = "; ".join(panel.title for panel in found)
    if counts:
        support = [n for c in counts for n in c.support]
        text += f". On average {sum(support) / len(support):.2f} tokens are possible."
    return Picture(draw, "Support", text, seed=seed)


def _of_training(curves: Curves) -> List[Panel]:
    series = [
        Series(name, curves[group]["support"], style=i)
        for i, (group, name) in enumerate(_GROUPS.items())
        if "support" in curves.get(group, {})
    ]
    title = "possible tokens in training"
    return [Panel(title, "updates", "tokens with p > 0", series, log=True)] if series else []


def _of_counts(counts: List[Counts]) -> List[Panel]:
    positions = by_position(counts)
    series = [
        Series("possible tokens", [(p.position, p.support) for p in positions]),
        Series("attended positions", [(p.position, p.attended) for p in positions], style=1),
    ]
    bars = {
        float(n): 100 * share
        for n, share in histogram(n for c in counts for n in c.support).items()
    }
    cut = {n: share for n, share in bars.items() if n <= _MOST_BARS}
    beyond = sum(bars.values()) - sum(cut.values())
    title = "steps by possible tokens" + (f"; {beyond:.0f}% have more" if beyond >= 0.5 else "")
    return [
        Panel(
            f"along {len(counts)} outputs",
            "position in the output",
            "mean number",
            series,
            whole=True,
        ),
        Panel(title, "tokens with p > 0", "steps in %", bars=cut or bars, whole=True),
    ]


def _of_alphas(curves: Curves) -> List[Panel]:
    """A panel for each kind of attention, a colour for each layer, a line for each head."""
    kinds: Dict[str, List[Series]] = {}
    for name, curve in learned_alphas_of(curves).items():
        # such as decoder.layers.0.encoder_attn.0, the last being the head
        kind = "cross" if ".encoder_attn" in name else name.partition(".")[0]
        number = int(next((part for part in name.split(".")[:-1] if part.isdigit()), "0"))
        kinds.setdefault(kind, []).append(Series(f"layer {number + 1}", curve, style=number))
    return [
        Panel(f"learned \u03b1, {kind} attention", "updates", "\u03b1", series, markers=False)
        for kind, series in kinds.items()
    ]
