"""``fairseq-entmax predict MODEL < words.tsv > answers.tsv``."""

import argparse
import json
import logging
import sys
import time
from itertools import islice
from pathlib import Path
from typing import IO, Dict, Iterator, List, NoReturn, Optional

from fairseq_entmax.data.inflection import DataError, decoded, parsed
from fairseq_entmax.data.transduction import Item

from .folder import read_settings
from .transducer import Answer, Transducer

AT_ONCE = 10_000  # lines
COLUMNS = ("answer", "verdict", "probability", "possible", "unknown")
WITHHELD = "withheld"
_EPILOG = """
input, between tabs: the word, and features where the task has them; with --language-column first
its language. output: the same columns, then answer; verdict (unique: the only string with p > 0;
proven: none is more probable; open: neither is proven; nothing: none was found; withheld: see
--abstain); probability; the possible strings with their probabilities as JSON, where there is more
than one; and unknown symbols, as JSON.
"""


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(
        prog="fairseq-entmax predict",
        description=__doc__.splitlines()[0],
        epilog=_EPILOG,
    )
    one.add_argument("model", type=Path, help="folder: what run.sh calls model-of-N")
    one.add_argument("--language", help="of all words (default: the only one of the models)")
    one.add_argument(
        "--language-column", action="store_true", help="the first column is the language"
    )
    one.add_argument("--beam", type=int, help="width of the search (default: as the folder says)")
    one.add_argument(
        "--abstain",
        type=float,
        metavar="P",
        help="leave the answer empty unless it is the only possible one, or the proven best with "
        "at least this probability",
    )
    one.add_argument(
        "--coverage",
        metavar="PERCENT",
        help="list sets of possible strings that hold the right one so often: 90, 95 or 99",
    )
    one.add_argument(
        "--copy-unknown",
        action="store_true",
        help="write characters that the models do not know where they looked at them",
    )
    one.add_argument("--header", action="store_true", help="first print the names of the columns")
    one.add_argument("--cpu", action="store_true", help="do not use a GPU")
    return one


def main(arguments: List[str]) -> None:
    """Reads standard input to its end; the last line on standard error says how fast."""
    args = parser().parse_args(arguments)
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    try:
        _check(args)
        transducer = _transducer(args)
        language = None if args.language_column else transducer.language(args.language)
        names = _input_columns(transducer, args.language_column)
        if args.header:
            sys.stdout.write("\t".join([*names, *COLUMNS]) + "\n")
        _answer_all(args, transducer, _items(sys.stdin.buffer, names, transducer, language))
    except BrokenPipeError:  # of `| head`
        raise
    except (OSError, ValueError) as error:
        _fail(str(error))


def _answer_all(args: argparse.Namespace, transducer: Transducer, items: Iterator[Item]) -> None:
    begun, n, n_unknown = time.monotonic(), 0, 0
    columns = _input_columns(transducer, args.language_column)
    while True:
        some = list(islice(items, AT_ONCE))
        if not some:
            break
        answers = transducer.answers(some, copy_unknown=args.copy_unknown)
        for item, answer in zip(some, answers):
            fields = [getattr(item, name) for name in columns]
            sys.stdout.write("\t".join([*fields, *output_fields(answer, args.abstain)]) + "\n")
            n_unknown += bool(answer.unknown)
        sys.stdout.flush()
        n += len(some)
    seconds = max(time.monotonic() - begun, 1e-9)
    said = f"{n} words in {seconds:.1f} s, {n / seconds:.0f} a second"
    if n_unknown:
        said += f"; {n_unknown} with symbols that the models do not know (last column)"
    print(said, file=sys.stderr)


def output_fields(answer: Answer, threshold: Optional[float] = None) -> List[str]:
    """The columns of an answer, withheld where a threshold is given and not reached."""
    withheld = threshold is not None and not answer.is_given(threshold)
    several = len(answer.candidates) > 1 or withheld
    possible = [[text, round(p, 6)] for text, p in answer.candidates] if several else []
    return [
        "" if withheld else answer.text,
        WITHHELD if withheld else answer.verdict,
        f"{answer.probability:.4f}",
        json.dumps(possible, ensure_ascii=False) if possible else "",
        json.dumps(answer.unknown, ensure_ascii=False) if answer.unknown else "",
    ]


def _check(args: argparse.Namespace) -> None:
    if args.beam is not None and args.beam < 1:
        raise ValueError(f"--beam must be at least 1, got {args.beam}")
    if args.abstain is not None and not 0 <= args.abstain <= 1:
        raise ValueError(f"--abstain is a probability, got {args.abstain}")


def _transducer(args: argparse.Namespace) -> Transducer:
    temperature = 1.0
    if args.coverage is not None:
        known: Dict[str, float] = read_settings(args.model).coverage
        if args.coverage not in known:
            raise DataError(
                f"--coverage must be one of {' '.join(known) or 'none'}, which {args.model} has a "
                f"temperature for, got {args.coverage}"
            )
        temperature = known[args.coverage]
    return Transducer(args.model, args.beam, temperature, args.cpu)


def _input_columns(transducer: Transducer, with_language: bool) -> List[str]:
    columns = [c for c in transducer.spelling.style.columns if c in ("source", "features")]
    return [*(["language"] if with_language else []), *columns]


def _items(
    file: IO[bytes], names: List[str], transducer: Transducer, language: Optional[str]
) -> Iterator[Item]:
    """The lines of a table; empty ones are none. Features may be absent."""

    def read(line: str) -> Item:
        row = line.split("\t")
        least = len(names) - ("features" in names)
        if not least <= len(row) <= len(names):
            raise ValueError(f"expected {', '.join(names)} between tabs, got {line!r}")
        fields = dict(zip(names, row))
        known = transducer.language(fields.pop("language", language))
        item = Item(known, **fields)
        transducer.spelling.source_tokens(item)
        return item

    return parsed(decoded(file), read)


def _fail(message: str) -> NoReturn:
    sys.stdout.flush()
    print(f"predict: {message}", file=sys.stderr)
    raise SystemExit(2)
