"""Names that fairseq looks for in vain: of this package, and of numpy."""

import os
import sys
import types
from typing import Any

import numpy as np
from fairseq import utils
from fairseq.data import data_utils, language_pair_dataset, token_block_dataset

from .repairs import repair
from .wrapping import shadow

PACKAGE = __name__.split(".")[0]
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BESIDE_FAIRSEQ = os.path.join(os.path.dirname(utils.__file__), "..", PACKAGE)


def _is_taken_for_another() -> bool:
    return (
        os.path.isdir(BESIDE_FAIRSEQ)
        and os.path.samefile(BESIDE_FAIRSEQ, HERE)
        and BESIDE_FAIRSEQ not in sys.modules[PACKAGE].__path__
    )


@repair(_is_taken_for_another)
def be_found_beside_fairseq() -> None:
    """Let ``--user-dir fairseq_entmax`` mean this package when it was imported before.

    Fault: fairseq finds an installed package as ``.../fairseq/../fairseq_entmax`` and, comparing
    names instead of places, takes it for another one: ``not globally unique``.
    Versions: every fairseq. Test: tests/cli/test_user_dir.py::test_everything_is_registered.
    """
    sys.modules[PACKAGE].__path__.append(BESIDE_FAIRSEQ)


@repair(lambda: not hasattr(token_block_dataset.np, "compat"))
def restore_numpy_compat() -> None:
    """Give fairseq's data modules the numpy names that numpy 2 has removed.

    Fault: ``numpy.compat.long`` fails ``--sample-break-mode eos``; that and
    ``percentile(interpolation=)`` fail bucketed data (``--num-batch-buckets``).
    Versions: every fairseq. Test: tests/compat/test_repairs.py::test_numpy_compat_*.
    """

    def percentile(*args: Any, interpolation: str = "linear", **kwargs: Any) -> Any:
        return np.percentile(*args, method=interpolation, **kwargs)

    for module in (data_utils, language_pair_dataset, token_block_dataset):
        older = shadow(module, "np")
        older.__dict__.update(
            compat=types.SimpleNamespace(long=int), int=int, percentile=percentile
        )
