"""Lines that are longer than a model reads."""

import logging
from itertools import count
from typing import Any

from fairseq_cli import interactive

from .repairs import repair
from .wrapping import words_of, wrap

logger = logging.getLogger(__name__)


@repair(lambda: "_too_long" not in words_of(interactive.make_batches))
def answer_other_lines() -> None:
    """Let ``fairseq-interactive`` leave out a line that is too long, say so, and go on.

    Fault: a line with more tokens than ``--max-source-positions`` ends the command, and all lines
    after it, and those read with it, stay without an answer.
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
        return original(lines, cfg, task, max_positions, encode_fn)

    wrap(interactive, "make_batches", make_batches)


def _too_long(length: int, limit: Any) -> bool:
    return limit is not None and length > limit
