"""Faults in fairseq's beam search, whatever the model."""

from typing import Any

import torch
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.search import DiverseBeamSearch

from .repairs import repair, wrap


def _blocks_nothing() -> bool:
    block = NGramRepeatBlock(2, use_extension=False)
    tokens = torch.tensor([[2, 5, 6, 5, 1, 1, 1, 1]])  # padded, as the generator's buffer is
    return bool(torch.isfinite(block._no_repeat_ngram(tokens, torch.zeros(1, 8), 1, 1, 3)).all())


@repair(_blocks_nothing)
def block_repeated_ngrams() -> None:
    """Let ``--no-repeat-ngram-size`` look at the words written so far.

    Fault: without fairseq's CUDA extension the last n-gram is read from the end of the padded
    buffer, so nothing is ever blocked.
    Versions: every fairseq.
    Test: tests/decoding/test_sparse_beam.py::test_ngram_blocking_outside_the_support.
    """

    def no_repeat_ngram(
        original: Any, block: Any, tokens: Any, lprobs: Any, bsz: int, beam_size: int, step: int
    ) -> Any:
        return original(block, tokens[:, : step + 1], lprobs, bsz, beam_size, step)

    wrap(NGramRepeatBlock, "_no_repeat_ngram", no_repeat_ngram)


@repair()
def find_groups_by_row() -> None:
    """Let ``--diverse-beam-groups`` answer a data set of more than one batch.

    Fault: what the groups share is kept by row of the batch and looked up by number of the
    sentence in the data set: ``IndexError: index 10 is out of bounds for dimension 0``, or the
    penalty of another sentence.
    Versions: every fairseq. Test: tests/cli/test_generate.py::test_diverse_beam_*.
    """

    def step(
        original: Any,
        search: Any,
        step: int,
        lprobs: Any,
        scores: Any,
        prev_output_tokens: Any = None,
        original_batch_idxs: Any = None,
    ) -> Any:
        if original_batch_idxs is not None:
            if step == 0:
                search.batch_idxs = original_batch_idxs
            same = original_batch_idxs.unsqueeze(1) == search.batch_idxs
            original_batch_idxs = same.int().argmax(1)
        return original(search, step, lprobs, scores, prev_output_tokens, original_batch_idxs)

    wrap(DiverseBeamSearch, "step", step)
