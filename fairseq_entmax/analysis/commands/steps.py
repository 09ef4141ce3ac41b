"""The possible next tokens at every step of one output."""

import argparse
from typing import Any, List

from fairseq_entmax.analysis.opened import Line, Opened
from fairseq_entmax.analysis.pictures import Picture
from fairseq_entmax.analysis.pictures.bars import step_bars
from fairseq_entmax.analysis.segmentation import joined
from fairseq_entmax.analysis.steps import Step, next_token_probs, steps

from . import shared

_EXAMPLE = f"{shared.DEMO} --sentence 3 --out steps.svg"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("steps", __doc__, _EXAMPLE)
    shared.add_models(made)
    shared.add_input(made)
    made.add_argument("--most", type=int, default=12, help="tokens of a step (default: 12)")
    made.add_argument("--force-reference", action="store_true", help="write the reference")
    shared.add_picture(made)
    return made


def main(arguments: List[str]) -> None:
    """Draws one sentence."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    if args.most < 1:
        raise ValueError(f"--most must be at least 1, got {args.most}")
    if len(args.path) > 1:
        raise ValueError("steps are drawn for one --path; a:b is an ensemble")
    (opened,) = shared.open_models(args)
    line = shared.read_line(args, opened)
    if args.force_reference and line.target is None:
        raise ValueError("--force-reference needs a sentence of a subset: drop --input")
    target = line.target if args.force_reference else opened.answer(line)
    found = steps_of(opened, line, target, args.most)
    picture = steps_picture(found, line, joined(opened.written(target)))
    numbers = {"source": line.symbols, "steps": [step._asdict() for step in found]}
    shared.finish(args, picture, numbers)


def steps_of(opened: Opened, line: Line, target: Any, most: int = 12) -> List[Step]:
    """The steps of one string."""
    probs = next_token_probs(opened.models, opened.sample([line]), target)
    return steps(probs, opened.target_words, target, line.target, most)


def steps_picture(found: List[Step], line: Line, output: str) -> Picture:
    """The steps of one sentence."""
    title = f"{joined(line.symbols)}  \u2192  {output}"

    def draw(theme: Any) -> Any:
        return step_bars(_shortened(found), theme, title)

    counts = " ".join(str(step.support) for step in found)
    text = f"Numbers of possible next tokens at each step: {counts}."
    labels = [title, *(token for step in found for token in step.tokens)]
    return Picture(draw, f"Next tokens: {title}", text, labels)


def _shortened(found: List[Step]) -> List[Step]:
    return [
        step._replace(
            tokens=shared.labels(step.tokens),
            chosen=shared.labels([step.chosen])[0],
            gold=step.gold and shared.labels([step.gold])[0],
        )
        for step in found
    ]
