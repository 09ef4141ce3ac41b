"""The faults of fairseq that every user of this package would meet, mended in one place.

Each function names the fault, the versions that have it, and the test that fails without it. All
are applied once, when the package is imported; see :func:`apply`.
"""

import argparse
import contextlib
import functools
import inspect
import os
import pickle
import re
import sys
import types
from typing import Any, Callable, List

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from fairseq.data import data_utils, language_pair_dataset, token_block_dataset
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.search import DiverseBeamSearch
from fairseq.tasks import FairseqTask, translation_from_pretrained_bart

_MARK = "_fairseq_entmax"


def apply() -> None:
    """Mend everything, once per process."""
    allow_fairseq_checkpoints()
    explain_refused_checkpoints()
    keep_last_batch()
    keep_batches_on_resuming()
    block_repeated_ngrams()
    find_groups_by_row()
    mix_precision_on_cpus()
    be_found_beside_fairseq()
    restore_numpy_compat()
    let_pretrained_bart_find_its_settings()


def _wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Replace ``owner.name`` by ``wrapper(original, *args, **kwargs)``, unless that was done."""
    original = getattr(owner, name)
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(wrapped, _MARK, True)
    setattr(owner, name, wrapped)


def allow_fairseq_checkpoints() -> None:
    """Let torch load what fairseq itself writes into a checkpoint, and nothing else.

    Fault: torch >= 2.6 loads weights only, and fairseq saves an ``argparse.Namespace`` (and numpy
    scalars with ``--eval-bleu``): generate, validate and resuming all fail.
    Versions: every fairseq. Test: tests/test_compat.py::test_checkpoint_*.
    """
    if not hasattr(torch.serialization, "add_safe_globals"):  # torch < 2.4 loads any pickle
        return
    multiarray = getattr(np, "_core", None) or np.core
    functions = [multiarray.multiarray._reconstruct, multiarray.multiarray.scalar]
    dtypes = [type(np.dtype(kind)) for kind in (np.int64, np.float64, np.float32)]
    allowed: List[Any] = [argparse.Namespace, np.ndarray, np.dtype, *functions, *dtypes]
    torch.serialization.add_safe_globals(allowed)
    # numpy 1 and 2 write different module names; torch < 2.6 takes no names
    named: List[Any] = [
        (function, f"numpy.{package}.multiarray.{function.__name__}")
        for function in functions
        for package in ("core", "_core")
    ]
    with contextlib.suppress(TypeError, ValueError):
        torch.serialization.add_safe_globals(named)


def explain_refused_checkpoints() -> None:
    """Say what a refused checkpoint holds, instead of how to switch the protection off.

    Fault: torch's message for a pickle with foreign code advises ``weights_only=False``, which
    would execute it.
    Versions: torch >= 2.6. Test: tests/test_compat.py::test_hostile_checkpoint_*.
    """

    def load(original: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(path, *args, **kwargs)
        except pickle.UnpicklingError as error:
            foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
            if foreign is None:
                raise
            raise ValueError(
                f"refused to load the checkpoint {path}: it holds {foreign.group(1)}, which no "
                "fairseq checkpoint needs and which could run foreign code. Nothing was executed. "
                "Use a checkpoint written by fairseq, from a source you trust."
            ) from None

    _wrap(checkpoint_utils, "load_checkpoint_to_cpu", load)


def keep_last_batch() -> None:
    """Do not drop the last sentences of a data set.

    Fault: ``batch_by_size`` drops the last batch if its size is no multiple of
    ``--required-batch-size-multiple`` (default 8): generate answers 96 of 100 sentences, and a
    data set of fewer than 8 is a ZeroDivisionError.
    Versions: fairseq main and ve-fairseq 0.12.3. Test: tests/test_compat.py::test_last_batch_*.
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

    _wrap(data_utils, "batch_by_size", batch_by_size)


def keep_batches_on_resuming() -> None:
    """Resume a training with the batches it had.

    Fault: a training puts its sentences into batches once, by the seed of epoch 1, but one that is
    resumed by the seed of its first epoch: other batches, other losses than unbroken.
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

    _wrap(FairseqTask, "get_batch_iterator", get_batch_iterator)


def block_repeated_ngrams() -> None:
    """Let ``--no-repeat-ngram-size`` look at the words written so far.

    Fault: without fairseq's CUDA extension the last n-gram is read from the end of the padded
    buffer, so nothing is ever blocked.
    Versions: every fairseq. Test: tests/decoding/::test_ngram_blocking_outside_the_support.
    """

    def no_repeat_ngram(
        original: Any, block: Any, tokens: Any, lprobs: Any, bsz: int, beam_size: int, step: int
    ) -> Any:
        return original(block, tokens[:, : step + 1], lprobs, bsz, beam_size, step)

    _wrap(NGramRepeatBlock, "_no_repeat_ngram", no_repeat_ngram)


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

    _wrap(DiverseBeamSearch, "step", step)


def mix_precision_on_cpus() -> None:
    """Let ``--cpu --amp`` mix precision: the forward pass under autocast to bfloat16.

    Fault: the autocast that ``--amp`` enters is CUDA's, so on a CPU all stays in float32 and
    nothing is said.
    Versions: every fairseq. Test: tests/test_compat.py::test_amp_*.
    """

    def train_step(
        original: Any,
        task: Any,
        sample: Any,
        model: Any,
        criterion: Any,
        optimizer: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        def mixed(model: Any, sample: Any) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return criterion(model, sample)

        on_cpu = next(model.parameters()).device.type == "cpu"
        step = mixed if on_cpu and isinstance(optimizer, AMPOptimizer) else criterion
        return original(task, sample, model, step, optimizer, *args, **kwargs)

    _wrap(FairseqTask, "train_step", train_step)


def be_found_beside_fairseq() -> None:
    """Let ``--user-dir fairseq_entmax`` mean this package when it was imported before.

    Fault: fairseq finds an installed package as ``.../fairseq/../fairseq_entmax`` and, comparing
    names instead of places, takes it for another one: ``not globally unique``.
    Versions: every fairseq. Test: tests/cli/test_user_dir.py::test_everything_is_registered.
    """
    package = sys.modules["fairseq_entmax"]
    beside = os.path.join(os.path.dirname(utils.__file__), "..", "fairseq_entmax")
    here = os.path.dirname(os.path.abspath(__file__))
    if os.path.isdir(beside) and os.path.samefile(beside, here) and beside not in package.__path__:
        package.__path__.append(beside)


def restore_numpy_compat() -> None:
    """Give fairseq's data modules the numpy names that numpy 2 has removed.

    Fault: ``numpy.compat.long`` fails ``--sample-break-mode eos``; that and
    ``percentile(interpolation=)`` fail bucketed data (``--num-batch-buckets``).
    Versions: every fairseq. Test: tests/test_compat.py::test_numpy_compat_*.
    """
    if hasattr(np, "compat"):
        return

    def percentile(*args: Any, interpolation: str = "linear", **kwargs: Any) -> Any:
        return np.percentile(*args, method=interpolation, **kwargs)

    older = types.ModuleType("numpy")
    older.__dict__.update(np.__dict__)
    older.__dict__.update(compat=types.SimpleNamespace(long=int), int=int, percentile=percentile)
    for module in (data_utils, language_pair_dataset, token_block_dataset):
        module.np = older


def let_pretrained_bart_find_its_settings() -> None:
    """Let ``--task translation_from_pretrained_bart`` be set up.

    Fault: the task asks for ``args``, which has become ``cfg``: ``no attribute 'args'``.
    Versions: fairseq main and ve-fairseq 0.12.3. Test: tests/cli/test_twins.py.
    """
    task = translation_from_pretrained_bart.TranslationFromPretrainedBARTTask
    if not hasattr(task, "args"):
        task.args = property(lambda self: self.cfg)
