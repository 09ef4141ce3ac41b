"""Faults in fairseq's beam search, whatever the model."""

import math
from typing import Any, Optional

import torch
from fairseq.data import Dictionary
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.search import DiverseBeamSearch
from torch import Tensor

from .repairs import repair
from .wrapping import wrap


def _never_blocks() -> bool:
    block = NGramRepeatBlock(2, use_extension=False)
    buffer = torch.tensor([[4, 5, 4, 1, 1, 1]])  # 4 5 4, and padding
    return block(buffer, torch.zeros(1, 6), 1, 1, 2)[0, 5].item() != -math.inf


@repair(_never_blocks)
def block_repeated_ngrams() -> None:
    """Let ``--no-repeat-ngram-size`` look at the words written so far.

    Fault: without fairseq's CUDA extension the last n-gram is read from the end of the padded
    buffer, so nothing is ever blocked.
    Versions: every fairseq. Test: tests/compat/test_scripting.py::test_*,
    tests/decoding/test_sparse_beam.py::test_ngram_blocking_outside_the_support.
    """

    def forward(self, tokens, lprobs, bsz: int, beam_size: int, step: int):  # type: ignore
        """As stock's; written out, because TorchScript compiles it from this source."""
        n_rows = bsz * beam_size
        assert tokens.size(0) == n_rows, f"expected {n_rows} got {tokens.size(0)}"
        assert lprobs.size(0) == n_rows, f"expected {n_rows} got {lprobs.size(0)}"
        if self.use_extension:
            return self.call_cuda_extension(tokens, lprobs, bsz, beam_size, step)
        return self._no_repeat_ngram(tokens[:, : step + 1], lprobs, bsz, beam_size, step)

    NGramRepeatBlock.forward = forward


def _looks_up_groups_by_number() -> bool:
    search = DiverseBeamSearch(Dictionary(), num_groups=2, diversity_strength=0.5)
    lprobs, scores = torch.zeros(1, 2, 4), torch.zeros(1, 2, 1)
    try:
        for step in (0, 1):
            search.step(step, lprobs, scores, original_batch_idxs=torch.tensor([10]))
    except IndexError:
        return True
    return False


@repair(_looks_up_groups_by_number)
def find_groups_by_row() -> None:
    """Let ``--diverse-beam-groups`` answer a data set of more than one batch.

    Fault: what the groups share is kept by row of the batch and looked up by number of the
    sentence in the data set: ``IndexError: index 10 is out of bounds for dimension 0``, or the
    penalty of another sentence.
    Versions: every fairseq. Test: tests/cli/test_generate.py::test_diverse_beam_*,
    tests/compat/test_scripting.py::test_scripted_diverse_beam_*.
    """

    def __init__(original: Any, search: Any, *args: Any, **kwargs: Any) -> None:
        original(search, *args, **kwargs)
        search.batch_idxs = torch.empty(0, dtype=torch.long)

    @torch.jit.export  # type: ignore
    def step(  # type: ignore
        self,
        step: int,
        lprobs,
        scores,
        prev_output_tokens: Optional[Tensor] = None,
        original_batch_idxs: Optional[Tensor] = None,
    ):
        """Stock's behind the search for rows; TorchScript compiles both, each from its source."""
        if original_batch_idxs is not None:
            if step == 0:
                self.batch_idxs = original_batch_idxs
            same = original_batch_idxs.unsqueeze(1) == self.batch_idxs
            original_batch_idxs = same.int().argmax(1)
        return self.step_of_rows(step, lprobs, scores, prev_output_tokens, original_batch_idxs)

    wrap(DiverseBeamSearch, "__init__", __init__)
    DiverseBeamSearch.step_of_rows = DiverseBeamSearch.step
    DiverseBeamSearch.step = step
