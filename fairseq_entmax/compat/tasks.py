"""Tasks of fairseq that fail before or in their first update."""

from argparse import Namespace
from collections import defaultdict
from typing import Any, Dict, Iterator, Tuple

from fairseq.data import Dictionary
from fairseq.tasks.semisupervised_translation import (
    SemisupervisedTranslationTask,
    _get_bt_dataset_key,
    _get_denoising_dataset_key,
)
from fairseq.tasks.translation_from_pretrained_bart import TranslationFromPretrainedBARTTask

from .repairs import repair
from .wrapping import words_of, wrap


def _has_no_args() -> bool:
    settings = Namespace(langs="en")
    task = TranslationFromPretrainedBARTTask(settings, Dictionary(), Dictionary())
    return not hasattr(task, "args")


@repair(_has_no_args)
def let_pretrained_bart_find_its_settings() -> None:
    """Let ``--task translation_from_pretrained_bart`` be set up.

    Fault: the task asks for ``args``, which has become ``cfg``: ``no attribute 'args'``.
    Versions: fairseq main and ve-fairseq 0.12.3. Test: tests/compat/test_tasks.py::test_bart_*,
    tests/cli/test_twins.py.
    """

    def __init__(original: Any, task: Any, args: Any, *more: Any, **kwargs: Any) -> None:
        task.args = args
        original(task, args, *more, **kwargs)

    wrap(TranslationFromPretrainedBARTTask, "__init__", __init__)


def _starts_with_no_counts() -> bool:
    return "defaultdict" not in words_of(SemisupervisedTranslationTask.train_step)


@repair(_starts_with_no_counts)
def count_in_semisupervised_training() -> None:
    """Let ``--task semisupervised_translation`` make its first update.

    Fault: the statistics of an update are added up in an empty dictionary: ``KeyError: 'loss'``.
    Versions: every fairseq. Test: tests/compat/test_tasks.py::test_semisupervised_*,
    tests/cli/test_back_translation.py::test_semisupervised_*.
    """

    def train_step(
        task: Any,
        sample: Any,
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Tuple[float, float, Dict[str, float]]:
        model.train()
        if update_num > 0:
            task.update_step(update_num)
        total, size, counts = 0.0, 0.0, defaultdict(float)
        for weight, key, direction in _parts_of_update(task):
            if not sample[key]:
                continue
            loss, n_items, log = criterion(model.models[direction], sample[key])
            loss = loss * (0.0 if ignore_grad else weight)
            optimizer.backward(loss)
            total += loss.item()
            size += n_items
            for name, value in log.items():
                counts[name] += value
                counts[f"{key}:{name}"] += value
        return total, size, counts

    SemisupervisedTranslationTask.train_step = train_step


def _parts_of_update(task: Any) -> Iterator[Tuple[float, str, str]]:
    """The weight of a loss, the key of its part of the sample, the direction of its model."""
    for pair in task.lang_pairs:
        if task.lambda_parallel > 0:
            yield task.lambda_parallel, pair, pair
    for pair in task.lang_pairs:
        if task.lambda_otf_bt > 0:
            yield task.lambda_otf_bt, _get_bt_dataset_key(pair), pair
    for pair in task.lang_pairs:
        if task.lambda_denoising > 0:
            target = pair.split("-")[1]
            yield task.lambda_denoising, _get_denoising_dataset_key(pair), f"{target}-{target}"
