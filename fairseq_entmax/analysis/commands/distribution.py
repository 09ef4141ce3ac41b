"""What is proven of all strings that a model allows: entropy, length, events, calibration."""

import argparse
import re
from typing import Dict, List, Tuple

from fairseq_entmax.analysis.distributions import Known, Summary, known_of, summarise
from fairseq_entmax.data.files import write_json
from fairseq_entmax.decoding.distribution import Bounds

from . import shared

_EXAMPLE = f"{shared.DEMO} --event plural=en$ --json distribution.json"


def event(text: str) -> Tuple[str, str]:
    """NAME=REGEX, or REGEX alone.

    Raises:
        argparse.ArgumentTypeError: it is no regular expression.
    """
    name, _, pattern = text.partition("=")
    try:
        re.compile(pattern or name)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    return name, pattern or name


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("distribution", __doc__, _EXAMPLE)
    shared.add_models(made)
    made.add_argument("--subset", default="test", help="of the data (default: test)")
    made.add_argument(
        "--sentences",
        type=shared.at_least_one,
        default=100,
        help="the first ones of the subset (default: 100)",
    )
    made.add_argument(
        "--event",
        type=event,
        action="append",
        default=[],
        metavar="NAME=REGEX",
        help="also P(the regular expression is found in the output)",
    )
    made.add_argument(
        "--separator", default="", help="between symbols, where events look (default: nothing)"
    )
    made.add_argument("--mass", type=float, default=0.99, help="to list (default: 0.99)")
    made.add_argument(
        "--strings", type=shared.at_least_one, default=1000, help="to list at most (default: 1000)"
    )
    made.add_argument(
        "--max-expansions",
        type=shared.at_least_one,
        default=10000,
        help="of a sentence (default: 10000)",
    )
    made.add_argument(
        "--nbest",
        type=shared.at_least_one,
        default=3,
        help="strings to keep in the JSON file (default: 3)",
    )
    shared.add_json(made, "every sentence")
    return made


def main(arguments: List[str]) -> None:
    """Prints the means and the calibration."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    if not 0 < args.mass <= 1:
        raise ValueError(f"--mass must be in (0, 1], got {args.mass}")
    (opened,) = shared.open_models(args)[:1]
    lines = opened.subset(args.subset)[: args.sentences]
    known: List[Known] = []
    for line in shared.progress(lines, "sentences", len(lines)):
        found = opened.distribution(line, args.strings, args.mass, args.max_expansions)
        reference = opened.written(line.target) if line.target is not None else []
        known.append(known_of(line, found, reference, dict(args.event), args.separator, args.nbest))
    summary = summarise(known)
    print(report(summary))
    if args.json:
        write_json(args.json, {"summary": summary.row(), "sentences": [k.row() for k in known]})
        print(f"wrote {args.json}")


def report(summary: Summary) -> str:
    """The means with their bounds and the calibration table, in Markdown."""
    numbers: Dict[str, Bounds] = {
        "entropy (nats)": summary.entropy,
        "length (symbols)": summary.length,
        **{f"P({name})": bounds for name, bounds in summary.events.items()},
    }
    lines = [
        f"{summary.sentences} sentences: {summary.strings:.1f} strings with mass "
        f"{summary.mass:.4f} listed, {summary.certain:.1%} with one possible string, accuracy "
        f"{summary.accuracy:.1%}",
        "",
        "| mean | value | at least | at most |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {b.value:.4f} | {b.low:.4f} | {b.high:.4f} |"
            for name, b in numbers.items()
        ),
        "",
        "| confidence | answers | mean | right |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {'1, certain' if b.low == 1 else f'{b.low:.1f} to {b.high:.1f}'} | {b.answers} "
            f"| {b.confidence:.4f} | {b.accuracy:.4f} |"
            for b in summary.calibration
        ),
        "",
        f"expected calibration error {summary.calibration_error:.4f}",
    ]
    return "\n".join(lines)
