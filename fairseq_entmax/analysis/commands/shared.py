"""What the command lines that draw have in common."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple, TypeVar

from fairseq_entmax.analysis.opened import Line, Opened
from fairseq_entmax.analysis.pictures.files import Picture, check_ending, write
from fairseq_entmax.data.files import write_json

MOST_TOKENS = 100  # of an input: more labels cannot be read
_LONGEST_LABEL = 32
DEMO = "demo/bin --path demo/checkpoints/checkpoint_best.pt"

Item = TypeVar("Item")


def make_parser(name: str, doc: Optional[str], example: str) -> argparse.ArgumentParser:
    """A parser whose help begins with the first line of a module's docstring."""
    return argparse.ArgumentParser(
        prog=f"fairseq-entmax {name}",
        description=(doc or "").splitlines()[0],
        epilog=f"example:\n  fairseq-entmax {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_models(parser: argparse.ArgumentParser, several: str = "") -> None:
    """DATA, ``--path`` and what opens them; ``several`` says what a second ``--path`` is for."""
    parser.add_argument("data", help="folder that fairseq-preprocess wrote")
    parser.add_argument(
        "--path",
        action="append",
        required=True,
        metavar="CHECKPOINT[:CHECKPOINT...]",
        help="checkpoint, or several that answer together" + (several and f"; {several}"),
    )
    parser.add_argument(
        "--languages",
        nargs=2,
        default=[],
        metavar=("SOURCE", "TARGET"),
        help="(default: as the checkpoint or the data say)",
    )
    parser.add_argument(
        "--sentencepiece", metavar="MODEL", help="cuts raw text (default: one beside the data)"
    )
    add_cpu(parser)


def add_named_models(parser: argparse.ArgumentParser) -> None:
    """``--model NAME=CHECKPOINT``, of which there may be several."""
    parser.add_argument(
        "--model", action="append", required=True, type=named_path, metavar="NAME=CHECKPOINT"
    )


def add_cpu(parser: argparse.ArgumentParser) -> None:
    """``--cpu``."""
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Where the numbers go as well."""
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"also write {what} there")


def named_path(text: str) -> Tuple[str, str]:
    """NAME=CHECKPOINT[:CHECKPOINT...] in two parts.

    Raises:
        argparse.ArgumentTypeError: it has another form.
    """
    name, equals, paths = text.partition("=")
    if not name or not equals or not paths:
        raise argparse.ArgumentTypeError(f"expected NAME=CHECKPOINT[:CHECKPOINT...], got {text!r}")
    return name, paths


def at_least_one(text: str) -> int:
    """A whole number of the command line.

    Raises:
        argparse.ArgumentTypeError: it is below 1, or none.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
    return int(text)


def add_input(parser: argparse.ArgumentParser) -> None:
    """One sentence: raw text, or of a subset."""
    parser.add_argument(
        "--input", metavar="TEXT", help="raw text, or a file of it (default: the subset)"
    )
    parser.add_argument("--subset", default="test", help="of the data (default: test)")
    parser.add_argument(
        "--sentence", type=int, default=0, metavar="N", help="of the subset or file (default: 0)"
    )


def add_picture(parser: argparse.ArgumentParser) -> None:
    """Where the picture and its numbers go."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="FILE.png, FILE.svg or FILE.pdf"
    )
    add_json(parser, "the numbers")
    parser.add_argument(
        "--dark",
        action="store_true",
        help="for a dark page; without it SVG follows the setting of its reader",
    )


def run(
    parser: argparse.ArgumentParser,
    arguments: List[str],
    work: Callable[[argparse.Namespace], None],
) -> None:
    """Parses and works; what a user can mend is one line, and leaves no file."""
    args = parser.parse_args(arguments)
    for name in ("", "fairseq"):  # what fairseq has set to talk
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        if getattr(args, "out", None) is not None:
            check_ending(args.out)
        work(args)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def finish(args: argparse.Namespace, picture: Picture, numbers: Any) -> None:
    """Writes the picture, and the numbers behind it where they are asked for."""
    write(picture, args.out, args.dark)
    print(f"wrote {args.out}")
    if args.json:
        write_json(args.json, numbers)
        print(f"wrote {args.json}")


def open_models(args: argparse.Namespace) -> List[Opened]:
    """What each ``--path`` names."""
    options = (args.languages, args.sentencepiece, args.cpu)
    models = [Opened(args.data, paths, *options) for paths in args.path]
    names = [opened.name for opened in models]
    for opened, name in zip(models, names):
        if names.count(name) > 1:
            opened.name = f"{name} of {', '.join(opened.paths)}"
    return models


def read_line(args: argparse.Namespace, opened: Opened) -> Line:
    """The sentence that ``--input`` or ``--subset`` and ``--sentence`` name.

    Raises:
        ValueError: there is none of this number, it is empty, or too long to be drawn.
    """
    if args.input is None:
        lines: Any = opened.subset(args.subset)
        where = f"subset {args.subset}"
    else:
        lines, where = raw_lines(args.input), f"--input {args.input[:40]!r}"
    if not 0 <= args.sentence < len(lines):
        raise ValueError(f"--sentence {args.sentence}: {where} has 0 to {len(lines) - 1}")
    line = lines[args.sentence]
    checked = opened.line(line) if isinstance(line, str) else line
    check_length(checked)
    return checked


def raw_lines(text: str) -> List[str]:
    """The lines of a file of this name, or else the text itself."""
    try:
        is_file = Path(text).is_file()
    except OSError:  # too long for a name
        is_file = False
    return Path(text).read_text(encoding="utf-8").splitlines() or [""] if is_file else [text]


def check_length(line: Line) -> None:
    """Raises:
    ValueError: too many tokens for a picture.
    """
    if len(line.symbols) > MOST_TOKENS:
        raise ValueError(
            f"the input has {len(line.symbols)} tokens, a picture shows {MOST_TOKENS} at most"
        )


def labels(symbols: Iterable[str]) -> List[str]:
    """Symbols short enough to stand beside a picture; says when it shortens."""
    given = list(symbols)
    longest = max(given, key=len, default="")
    if len(longest) > _LONGEST_LABEL:
        short = longest[: _LONGEST_LABEL - 1] + "\u2026"
        print(f"a token of {len(longest)} characters is shown as {short}", file=sys.stderr)
    return [s if len(s) <= _LONGEST_LABEL else s[: _LONGEST_LABEL - 1] + "\u2026" for s in given]


def progress(items: Iterable[Item], what: str, total: Optional[int] = None) -> Iterator[Item]:
    """The items, with a bar on a terminal."""
    from tqdm import tqdm

    yield from tqdm(items, desc=what, total=total, disable=None, leave=False)
