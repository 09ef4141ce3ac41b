"""The C library: found, chosen by processor, loaded with ctypes, threaded like torch.

It has a plain C interface, so one build serves every torch and Python. It starts no threads of
its own: it borrows the OpenMP runtime that torch uses, through the one entry point that all of
them share (``GOMP_parallel``), and obeys ``torch.get_num_threads()``.
"""

import ctypes
import logging
import os
import struct
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Dict, Optional

import torch
from torch import Tensor

from ..contract import SWITCH

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
BUILDS = ("baseline", "avx2", "avx512")
ABI = 6  # ENTMAX_ABI of csrc/common.h: what the functions' arguments and the structure mean


class LossFields(ctypes.Structure):
    """loss_t of csrc/loss.h; the pointers are named as in ``SolvedRows``."""

    _fields_ = [
        ("target", ctypes.c_void_p),
        ("capacity", ctypes.c_long),
        ("n_kept", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("loss", ctypes.c_void_p),
        ("support_size", ctypes.c_void_p),
        ("target_probs", ctypes.c_void_p),
        ("correct", ctypes.c_void_p),
        ("tau", ctypes.c_void_p),
        ("largest", ctypes.c_void_p),
    ]


@lru_cache(maxsize=None)
def library() -> Optional[Any]:
    """The loaded library, or None, said once in the log, when there is none for this machine."""
    wanted = os.environ.get(SWITCH, "")
    if wanted == "off":
        logger.info("compiled kernels are switched off (%s=off): using torch", SWITCH)
        return None
    if wanted and wanted not in BUILDS:
        raise ValueError(f"{SWITCH} must be 'off' or one of {', '.join(BUILDS)}, got {wanted!r}")
    built = _built()
    best = next((lib.entmax_best_build() for lib in built.values()), -1)
    runnable = [name for name in BUILDS[: best + 1] if name in built]
    if wanted and wanted not in runnable:  # a choice is kept or refused, never replaced
        why = "this processor cannot run it" if wanted in built else "it is not built here"
        raise ValueError(
            f"{SWITCH}={wanted}: {why} (to be had: {', '.join(runnable) or 'none'}); "
            "leave it unset for the best one"
        )
    if not runnable:
        why = "for this processor" if built else "(built without a C compiler)"
        logger.info("no compiled kernels %s: using torch", why)
        return None
    loaded = built[wanted or runnable[-1]]
    loaded.entmax_set_parallel(ctypes.c_void_p(_parallel_entry_point()))
    loaded.entmax_screen.restype = ctypes.c_long
    return loaded


def _built() -> Dict[str, Any]:
    """The builds that load here, by name; what does not is said in the log."""
    built = {}
    for name in BUILDS:
        # the plain ".so" stands last; a file with the tag of one Python is of an older version
        paths = (FOLDER / f"_entmax_{name}{end}" for end in reversed(EXTENSION_SUFFIXES))
        for path in filter(Path.exists, paths):
            try:
                built[name] = _load(path)
                break
            except (OSError, AttributeError, ValueError) as error:
                logger.warning("compiled kernels left out: %s: %s", path, error)
    return built


def _load(path: Path) -> Any:
    _check_whole(path.read_bytes())
    loaded = ctypes.CDLL(str(path))
    found, expected = loaded.entmax_abi(), ABI
    if found == ABI:
        found, expected = loaded.entmax_loss_size(), ctypes.sizeof(LossFields)
    if found != expected:
        raise ValueError(f"built from other sources ({found}, expected {expected}): build it again")
    return loaded


def _check_whole(image: bytes) -> None:
    """A truncated ELF file kills the process that maps it, before any error can be returned."""
    if image[:5] != b"\x7fELF\x02":  # other formats are the loader's to judge
        return
    header = image[:64].ljust(64, b"\0")
    (table,) = struct.unpack_from("=Q", header, 40)
    entry, entries = struct.unpack_from("=HH", header, 58)
    if len(image) < max(64, table + entry * entries):  # the sections' table stands at the end
        raise ValueError("truncated")


def _parallel_entry_point() -> Optional[int]:
    """GOMP_parallel as torch itself finds it, so that both share one pool; None: one thread.

    The loader looks among the process' global symbols first, then in what torch depends on; any
    other OpenMP library that is loaded (scikit-learn brings one) is passed over.
    """
    for scope in (None, torch._C.__file__):
        try:
            entry = ctypes.CDLL(scope).GOMP_parallel
        except (OSError, TypeError, AttributeError):  # TypeError: Windows has no global scope
            continue
        return ctypes.cast(entry, ctypes.c_void_p).value
    return None


def pointer(tensor: Optional[Tensor]) -> ctypes.c_void_p:
    """The address of a tensor's numbers; NULL for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def threads(work: int) -> ctypes.c_long:
    """As many as torch uses, but one where waking others costs more than it gives."""
    return ctypes.c_long(torch.get_num_threads() if work > 32768 else 1)


def call(name: str, *arguments: Any) -> int:
    """Call a kernel; integers are passed as long. What it returns is negative without memory."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = getattr(library(), name)(*wide)
    if result < 0:
        raise MemoryError(f"{name}: not enough memory for its scratch space")
    return result
