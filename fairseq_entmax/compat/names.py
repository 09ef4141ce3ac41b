"""Names that fairseq looks for in vain: of this package, of numpy, of a task's settings."""

import os
import sys
import types
from typing import Any

import numpy as np
from fairseq import utils
from fairseq.data import data_utils, language_pair_dataset, token_block_dataset
from fairseq.tasks import translation_from_pretrained_bart

from .repairs import repair


@repair()
def be_found_beside_fairseq() -> None:
    """Let ``--user-dir fairseq_entmax`` mean this package when it was imported before.

    Fault: fairseq finds an installed package as ``.../fairseq/../fairseq_entmax`` and, comparing
    names instead of places, takes it for another one: ``not globally unique``.
    Versions: every fairseq. Test: tests/cli/test_user_dir.py::test_everything_is_registered.
    """
    package = sys.modules["fairseq_entmax"]
    beside = os.path.join(os.path.dirname(utils.__file__), "..", "fairseq_entmax")
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.isdir(beside) and os.path.samefile(beside, here) and beside not in package.__path__:
        package.__path__.append(beside)


@repair(lambda: not hasattr(np, "compat"))
def restore_numpy_compat() -> None:
    """Give fairseq's data modules the numpy names that numpy 2 has removed.

    Fault: ``numpy.compat.long`` fails ``--sample-break-mode eos``; that and
    ``percentile(interpolation=)`` fail bucketed data (``--num-batch-buckets``).
    Versions: every fairseq. Test: tests/compat/test_repairs.py::test_numpy_compat_*.
    """

    def percentile(*args: Any, interpolation: str = "linear", **kwargs: Any) -> Any:
        return np.percentile(*args, method=interpolation, **kwargs)

    older = types.ModuleType("numpy")
    older.__dict__.update(np.__dict__)
    older.__dict__.update(compat=types.SimpleNamespace(long=int), int=int, percentile=percentile)
    for module in (data_utils, language_pair_dataset, token_block_dataset):
        module.np = older


_TASK = translation_from_pretrained_bart.TranslationFromPretrainedBARTTask


@repair(lambda: not hasattr(_TASK, "args"))
def let_pretrained_bart_find_its_settings() -> None:
    """Let ``--task translation_from_pretrained_bart`` be set up.

    Fault: the task asks for ``args``, which has become ``cfg``: ``no attribute 'args'``.
    Versions: fairseq main and ve-fairseq 0.12.3. Test: tests/cli/test_twins.py.
    """
    _TASK.args = property(lambda self: self.cfg)
