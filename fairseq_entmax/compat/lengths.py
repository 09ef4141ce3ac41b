"""Every line of fairseq-interactive has its answer, whatever the other lines are."""

import logging
import os
import sys
from itertools import count
from typing import Any, Callable, Iterator, List

from fairseq_cli import interactive

from .repairs import repair
from .wrapping import words_of, wrap

logger = logging.getLogger(__name__)


@repair(lambda: "_too_long" not in words_of(interactive.make_batches))
def answer_other_lines() -> None:
    """Let ``fairseq-interactive`` leave out a line that is too long, say so, and go on.

    Fault: a line with more tokens than ``--max-source-positions`` ends the command, and all lines
    after it, and those read with it, stay without an answer. All lines are kept in memory.
    Versions: every fairseq. Test: tests/compat/test_lengths.py::test_*.
    """
    numbers = count()  # as in S-0, S-1, ...

    def make_batches(
        original: Any, lines: Any, cfg: Any, task: Any, max_positions: Any, encode_fn: Any
    ) -> Any:
        numbered = [next(numbers) for _ in lines]
        sources = [line.split("\t")[0] for line in lines] if cfg.generation.constraints else lines
        _, lengths = task.get_interactive_tokens_and_lengths(sources, encode_fn)
        limit = max_positions[0] if isinstance(max_positions, (list, tuple)) else max_positions
        long = [(i, n) for i, n in zip(numbered, map(int, lengths)) if _too_long(n, limit)]
        for number, length in long:
            logger.warning(
                "S-%d has no answer: it has %d tokens with the end mark, and the model reads %d "
                "(--max-source-positions)",
                number,
                length,
                limit,
            )
        if len(long) == len(lines):
            return iter(())
        if long:
            cfg.dataset.skip_invalid_size_inputs_valid_test = True
        return _forgotten(task, original(lines, cfg, task, max_positions, encode_fn))

    _replace("make_batches", make_batches)


@repair(lambda: "_text" not in words_of(interactive.buffered_read))
def read_other_lines() -> None:
    """Let ``fairseq-interactive`` read a line that is not UTF-8 as far as it is, and say so.

    Fault: a byte that is not UTF-8 ends the command, and a carriage return inside a line makes two
    of it, so that all answers after it are numbered wrongly.
    Versions: every fairseq. Test: tests/compat/test_lengths.py::test_*.
    """

    def buffered_read(original: Any, input: str, buffer_size: int) -> Iterator[List[str]]:
        buffer: List[str] = []
        with os.fdopen(0, "rb", closefd=False) if input == "-" else open(input, "rb") as file:
            for number, line in enumerate(file):
                buffer.append(_text(line, number))
                if len(buffer) >= buffer_size:
                    yield buffer
                    buffer = []
        if buffer:
            yield buffer

    _replace("buffered_read", buffered_read)


def _forgotten(task: Any, batches: Iterator[Any]) -> Iterator[Any]:
    """A task keeps the iterator of every data set that it has met, for a next epoch."""
    yield from batches
    task.dataset_to_epoch_iter.clear()


def _text(line: bytes, number: int) -> str:
    text = line.decode("utf-8", errors="replace")
    if "\ufffd" in text and "\ufffd".encode() not in line:
        logger.warning("S-%d is not UTF-8: what cannot be read is an unknown symbol", number)
    return text.strip()


def _replace(name: str, wrapper: Callable[..., Any]) -> None:
    """Also in ``python -m fairseq_cli.interactive``, whose module has another name."""
    main = sys.modules["__main__"]
    wrap(interactive, name, wrapper)
    if getattr(main, "__spec__", None) and main.__spec__.name == interactive.__name__:
        wrap(main, name, wrapper)


def _too_long(length: int, limit: Any) -> bool:
    return limit is not None and length > limit
