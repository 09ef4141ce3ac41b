"""How sparse a model is on the strings that it writes."""

from typing import Any, Iterator, List, NamedTuple, Sequence

import numpy as np
import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset
from torch import Tensor

from .generation import Sentence

_BATCH = 256


class Sparsity(NamedTuple):
    """Means over the steps of the best hypotheses, the end of the string included.

    Example::

        >>> Sparsity(support=1.2, attended=3.75).support
        1.2
    """

    support: float  # symbols with p > 0
    attended: float  # source positions with attention > 0


@torch.no_grad()
def measure_sparsity(models: Sequence[Any], task: Any, sentences: Sequence[Sentence]) -> Sparsity:
    """Mean support of the output and of the attention along the best hypotheses.

    Both are those of the mean of the models' probabilities, with which an ensemble decodes.

    Args:
        models: an ensemble, in eval mode, all on one device.
        task: the translation task whose dictionaries the sentences were written with.
        sentences: what :func:`read_generation` returns.

    Raises:
        ValueError: no sentences.
    """
    if not sentences:
        raise ValueError("no sentences to measure the sparsity on")
    device = next(models[0].parameters()).device
    support = attended = steps = 0.0
    for batch in _batches(task, sentences):
        sample = utils.move_to_cuda(batch, device) if device.type == "cuda" else batch
        outputs = [model(**sample["net_input"]) for model in models]
        counted = sample["target"] != task.target_dictionary.pad()
        probs = sum(
            model.get_normalized_probs(output, log_probs=False)
            for model, output in zip(models, outputs)
        )
        attention = sum(_attention(output[1]) for output in outputs)
        support += ((probs > 0).sum(-1) * counted).sum().item()
        attended += ((attention > 0).sum(-1) * counted).sum().item()
        steps += counted.sum().item()
    return Sparsity(support / steps, attended / steps)


def _attention(extra: Any) -> Tensor:
    """The attention (bsz, tgt_len, src_len) of a decoder's second output."""
    if isinstance(extra, dict):
        extra = extra["attn"]
    return extra[0] if isinstance(extra, (list, tuple)) else extra


def _batches(task: Any, sentences: Sequence[Sentence]) -> Iterator[Any]:
    """The sources with the best hypotheses as targets, in batches of similar length."""

    def encode(dictionary: Any, symbols: List[str]) -> Tensor:
        return dictionary.encode_line(" ".join(symbols), add_if_not_exist=False).long()

    source, target = task.source_dictionary, task.target_dictionary
    sources = [encode(source, sentence.source) for sentence in sentences]
    targets = [encode(target, sentence.candidates[0].tokens) for sentence in sentences]
    lengths = [np.array([len(row) for row in rows]) for rows in (sources, targets)]
    dataset = LanguagePairDataset(
        sources, lengths[0], source, targets, lengths[1], target, shuffle=False
    )
    order = np.lexsort(lengths)
    for start in range(0, len(order), _BATCH):
        yield dataset.collater([dataset[i] for i in order[start : start + _BATCH]])
