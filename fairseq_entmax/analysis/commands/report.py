"""One self-contained HTML page about a model: scores, search, support, examples, errors."""

import argparse
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from fairseq_entmax.analysis.looks import Options, look
from fairseq_entmax.analysis.opened import Line, Opened
from fairseq_entmax.analysis.page.html import environment, page
from fairseq_entmax.analysis.pictures.theme import drawing_library
from fairseq_entmax.analysis.reports import Answered, answered, scores, settings, worst
from fairseq_entmax.analysis.supports import Counts, count
from fairseq_entmax.analysis.training import read_training
from fairseq_entmax.analysis.trees import percent
from fairseq_entmax.data.files import write_lines
from fairseq_entmax.decoding.report import summary

from . import shared
from .support import draw_lines, support_picture

_COUNTED = 60  # outputs along which tokens and positions are counted
_EXAMPLE = f"{shared.DEMO} --log demo/train.log --out report.html"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("report", __doc__, _EXAMPLE)
    shared.add_models(made)
    made.add_argument("--subset", default="test", help="of the data (default: test)")
    made.add_argument(
        "--sentences", type=int, default=200, help="drawn at random for scores (default: 200)"
    )
    made.add_argument("--examples", type=int, default=10, help="shown of them (default: 10)")
    made.add_argument("--beam", type=int, default=5, help="(default: 5)")
    made.add_argument("--seed", type=int, default=1, help="of the draw (default: 1)")
    made.add_argument("--title", help="(default: the model's alphas and its data)")
    made.add_argument(
        "--log",
        type=Path,
        nargs="+",
        default=[],
        help="log files of the training, or its --tensorboard-logdir",
    )
    made.add_argument(
        "--out", type=Path, required=True, dest="page", metavar="FILE.html", help="the page"
    )
    return made


def main(arguments: List[str]) -> None:
    """Writes the page."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    if not args.page.parent.is_dir():
        raise ValueError(f"cannot write {args.page}: there is no folder {args.page.parent}")
    if args.beam < 1 or args.examples < 0:
        raise ValueError("--beam must be at least 1 and --examples at least 0")
    if len(args.path) > 1:
        raise ValueError("a report is on one --path; a:b is an ensemble")
    environment()  # what is missing is said before the work, not after it
    drawing_library()
    curves = read_training(args.log)
    (opened,) = shared.open_models(args)
    lines = [
        line
        for line in draw_lines(opened, args.subset, args.sentences, args.seed)
        if len(line.symbols) <= shared.MOST_TOKENS
    ]
    found = answered(opened, lines, args.beam)
    counted = [one for one in found if one.answer][:_COUNTED]
    counts = [_count(opened, one) for one in shared.progress(counted, "support")]
    values: Dict[str, Any] = {
        "title": args.title or f"{opened.name} on {Path(args.data).name}",
        "subset": args.subset,
        "sentences": len(found),
        "seed": args.seed,
        "beam": args.beam,
        "scores": scores(found),
        "search": search_rows(found),
        "support": support_picture(curves, counts, args.seed),
        "examples": _examples(opened, lines, args),
        "mistakes": worst(opened, found),
        "settings": settings(opened),
    }
    write_lines(args.page, [page("report.html", **values)])
    print(f"wrote {args.page}")


def _count(opened: Opened, one: Answered) -> Counts:
    return count(opened, one.line, one.hypotheses[0]["tokens"].cpu())


def _examples(opened: Opened, lines: Sequence[Line], args: argparse.Namespace) -> List[Any]:
    """Some of the lines, spread over them: they were drawn at random."""
    every = max(1, len(lines) // max(1, args.examples))
    shown = lines[::every][: args.examples]
    options = Options(beam=args.beam, nbest=args.beam)
    return [look(opened, line, options) for line in shared.progress(shown, "examples")]


def search_rows(found: Sequence[Answered]) -> List[Tuple[str, str]]:
    """What beam search has proven, in words and figures."""
    numbers = summary(one.hypotheses[0]["certificate"] for one in found)
    empty = numbers["empty"]
    return [
        ("the best string is proven to be found", percent(numbers["optimum"])),
        ("the list holds every string with p > 0", percent(numbers["complete"])),
        ("no string is possible", percent(numbers["nothing"])),
        ("the empty string has p > 0", "-" if empty is None else percent(empty)),
        ("mean probability in the list", percent(numbers["mass"])),
        ("mean probability dropped", percent(numbers["pruned"])),
        ("mean number of possible next tokens", f"{numbers['support']:.2f}"),
        ("mean number of prefixes continued", f"{numbers['expansions']:.1f}"),
    ]
