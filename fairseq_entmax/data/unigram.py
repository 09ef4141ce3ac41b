"""How often each word stands in the targets of the training data."""

import logging
from typing import Any, Iterable, Optional

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_AT_ONCE = 10_000  # sentences: a count of each alone would cost as much as the vocabulary is large


def target_frequencies(task: Any) -> Tensor:
    """The unigram distribution of the target side, (V,) in float32.

    Counted on the training data, EOS included. Where there is none to load (a validation of data
    without it) the counts of the target dictionary stand in, which of a joined dictionary are
    those of both languages; the log says so.

    Source:
        Peters and Martins (SPNLP 2021), section 3: unigram label smoothing.
    """
    words = task.target_dictionary
    targets = _training_targets(task)
    if targets is None:
        logger.warning("no training targets to count: the dictionary's counts smooth the labels")
        counts = torch.tensor(words.count[: len(words)], dtype=torch.float64)
    else:
        counts = _count(targets, len(words))
    return (counts / counts.sum()).float()


def _training_targets(task: Any) -> Optional[Any]:
    datasets = getattr(task, "datasets", {})
    if "train" not in datasets:
        try:
            task.load_dataset("train")
        except (AttributeError, FileNotFoundError):
            return None
    return getattr(task.datasets["train"], "tgt", None)


def _count(sentences: Any, n_words: int) -> Tensor:
    counts = torch.zeros(n_words, dtype=torch.float64)
    for start in range(0, len(sentences), _AT_ONCE):
        some: Iterable[int] = range(start, min(start + _AT_ONCE, len(sentences)))
        counts += torch.bincount(torch.cat([sentences[i] for i in some]), minlength=n_words)
    return counts
