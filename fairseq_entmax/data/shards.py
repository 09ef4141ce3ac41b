"""``fairseq-entmax merge SHARD... > whole``: what shards of fairseq-generate printed.

A shard of ``fairseq-generate --num-shards N --shard-id K`` has the lines of its sentences, such as
``H-17``, among those of its log, and ends with ``Shard K of N`` (compat/shards.py).
"""

import argparse
import re
import sys
from itertools import islice
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional

_OF_A_SENTENCE = re.compile(r"([A-Z])-(\d+)(?:_\d+)?(?:\t|$)")
_END = re.compile(r"Shard\t(\d+)\tof\t(\d+)$")
_ONCE = "ST"  # kinds of lines of which a sentence has one: source and reference
SHOWN = 5


class Shard(NamedTuple):
    """What one file holds: the lines of each sentence, by its number, and which part it is."""

    name: str
    sentences: Dict[int, List[str]]
    number: Optional[int]  # None: it did not come to its end
    of: int


def read_shard(name: str, lines: Iterable[str]) -> Shard:
    """The sentences in the output of fairseq-generate.

    Raises:
        ValueError: a sentence is there twice, or a shard's end.

    Example::

        >>> shard = read_shard("part0", ["S-1\\ta b", "H-1\\t-0.1\\tc", "Shard\\t0\\tof\\t2"])
        >>> shard.number, shard.of, list(shard.sentences)
        (0, 2, [1])
    """
    sentences: Dict[int, List[str]] = {}
    number, of = None, 0
    for line in lines:
        line = line.rstrip("\n")
        found, end = _OF_A_SENTENCE.match(line), _END.match(line)
        if found:
            printed = sentences.setdefault(int(found.group(2)), [])
            if found.group(1) in _ONCE and any(p.startswith(found.group(0)) for p in printed):
                raise ValueError(f"{name}: sentence {found.group(2)} is there twice")
            printed.append(line)
        elif end and number is not None:
            raise ValueError(f"{name}: it holds more than one shard")
        elif end:
            number, of = int(end.group(1)), int(end.group(2))
    return Shard(name, sentences, number, of)


def merged(shards: List[Shard], n_lines: Optional[int] = None) -> Dict[int, List[str]]:
    """The lines of all sentences, by their number.

    Args:
        n_lines: of the data that were decoded; None goes by the largest number.

    Raises:
        ValueError: a sentence, or a shard, is missing or there twice.
    """
    _check_complete(shards)
    whole: Dict[int, List[str]] = {}
    owner: Dict[int, str] = {}
    for shard in shards:
        for number, lines in shard.sentences.items():
            if number in whole:
                raise ValueError(f"sentence {number} is in {owner[number]} and in {shard.name}")
            whole[number], owner[number] = lines, shard.name
    n = n_lines if n_lines is not None else max(whole, default=-1) + 1
    expected = range(n)
    n_missing = n - sum(number in expected for number in whole)
    if n_missing:  # may be very many where a number is damaged
        first = list(islice((number for number in expected if number not in whole), SHOWN))
        raise ValueError(
            f"{_listed('sentence', first, n_missing)} missing: fairseq-generate skipped it"
        )
    beyond = [number for number in whole if number not in expected]
    if beyond:
        raise ValueError(f"--lines {n_lines}: there is a sentence {max(beyond)}, counted from 0")
    return {number: whole[number] for number in sorted(whole)}


def _check_complete(shards: List[Shard]) -> None:
    seen: Dict[int, str] = {}
    for shard in shards:
        if shard.number is None:
            raise ValueError(
                f"{shard.name}: no line `Shard K of N` at its end: fairseq-generate was stopped or "
                "had no --num-shards and --shard-id"
            )
        if shard.of != shards[0].of:
            raise ValueError(
                f"{shards[0].name} is one of {shards[0].of} shards, {shard.name} one of {shard.of}"
            )
        if shard.number >= shard.of:
            raise ValueError(f"{shard.name}: it is shard {shard.number} of {shard.of}, from 0")
        if shard.number in seen:
            raise ValueError(f"{seen[shard.number]} and {shard.name} are both shard {shard.number}")
        seen[shard.number] = shard.name
    n_missing = shards[0].of - len(seen)
    if n_missing > 0:
        first = list(islice((n for n in range(shards[0].of) if n not in seen), SHOWN))
        raise ValueError(f"{_listed('shard', first, n_missing)} missing, of {shards[0].of}")


def _listed(what: str, first: List[int], n: int) -> str:
    named = " ".join(map(str, first)) + (" ..." if n > len(first) else "")
    return f"{what} {named} is" if n == 1 else f"{n} {what}s ({named}) are"


def main(arguments: List[str]) -> None:
    """Prints the sentences of all shards in the order of the input, or refuses with one line."""
    parser = argparse.ArgumentParser(
        prog="fairseq-entmax merge",
        description="join what the shards of fairseq-generate printed, in the order of the input",
    )
    parser.add_argument("shards", nargs="+", metavar="SHARD", help="output of one shard")
    parser.add_argument(
        "--lines", type=int, metavar="N", help="refuse anything but exactly N sentences"
    )
    args = parser.parse_args(arguments)
    try:
        shards = []
        for name in args.shards:
            with open(name, encoding="utf-8", newline="\n") as file:
                shards.append(read_shard(Path(name).name, file))
        sentences = merged(shards, args.lines)
    except (OSError, ValueError) as error:
        print(f"merge: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    for lines in sentences.values():
        sys.stdout.write("".join(line + "\n" for line in lines))
