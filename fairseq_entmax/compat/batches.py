"""Batches that fairseq loses or changes."""

import contextlib
import inspect
import logging
from argparse import Namespace
from typing import Any, Iterator, List

import numpy as np
from fairseq.data import FairseqDataset, data_utils
from fairseq.tasks import FairseqTask

from .repairs import repair
from .wrapping import wrap


def _drops_last_batch() -> bool:
    try:
        batches = data_utils.batch_by_size(
            np.arange(9), lambda i: 1, max_sentences=8, required_batch_size_multiple=8
        )
    except ImportError:  # fairseq's extension is not built, which fairseq says where it is needed
        return True
    return sum(len(batch) for batch in batches) < 9


@repair(_drops_last_batch)
def keep_last_batch() -> None:
    """Do not drop the last sentences of a data set.

    Fault: ``batch_by_size`` drops the last batch if its size is no multiple of
    ``--required-batch-size-multiple`` (default 8): generate answers 96 of 100 sentences, and a
    data set of fewer than 8 is a ZeroDivisionError.
    Versions: fairseq main and ve-fairseq 0.12.3. Test: tests/compat/test_repairs.py::test_last_*.
    """

    def batch_by_size(original: Any, indices: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(indices, np.ndarray):
            indices = np.fromiter(indices, dtype=np.int64, count=-1)
        if len(indices) == 0:
            return []
        batches = original(indices, *args, **kwargs)
        fixed_shapes = kwargs.get("fixed_shapes", args[5] if len(args) > 5 else None)
        kept = sum(len(batch) for batch in batches)
        if fixed_shapes is not None or kept == len(indices):
            return batches
        return [*batches, indices[kept:]]

    wrap(data_utils, "batch_by_size", batch_by_size)


class _Shuffled(FairseqDataset):
    """Eight items in an order drawn from numpy's state, as training data have it."""

    def __len__(self) -> int:
        return 8

    def ordered_indices(self) -> np.ndarray:
        return np.random.permutation(8)

    def num_tokens(self, index: int) -> int:
        return 1

    def collater(self, samples: Any) -> Any:
        return samples


@contextlib.contextmanager
def _silence(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _resumes_with_other_batches() -> bool:
    def order(epoch: int) -> List[int]:
        iterator = FairseqTask(Namespace()).get_batch_iterator(
            _Shuffled(), max_sentences=1, epoch=epoch
        )
        return np.concatenate(iterator.frozen_batches).tolist()

    with _silence(FairseqTask.__module__):
        return order(1) != order(2)


@repair(_resumes_with_other_batches)
def keep_batches_on_resuming() -> None:
    """Resume a training with the batches it had.

    Fault: an unbroken training forms its batches once, by the seed of epoch 1; a resumed one forms
    them by the seed of the epoch that it resumes in, so batches and losses differ.
    Versions: fairseq main and ve-fairseq 0.12.3. Test: tests/cli/test_resume.py.
    """

    def get_batch_iterator(
        original: Any, task: Any, dataset: Any, *args: Any, **kwargs: Any
    ) -> Any:
        call = inspect.signature(original).bind(task, dataset, *args, **kwargs)
        call.apply_defaults()
        options = call.arguments
        epoch = options["epoch"]
        once = task.can_reuse_epoch_itr(dataset) and not (
            options["disable_iterator_cache"] or options.get("update_epoch_batch_itr")
        )
        if not once or dataset in task.dataset_to_epoch_iter:
            return original(task, dataset, *args, **kwargs)
        options["epoch"] = 1
        iterator = original(*call.args, **call.kwargs)
        iterator.epoch = epoch
        dataset.set_epoch(epoch)
        return iterator

    wrap(FairseqTask, "get_batch_iterator", get_batch_iterator)
