"""Checkpoints are read, and nothing in them is run."""

import argparse
import errno
import fractions
import functools
import io
import logging
import pickle
import re
import zipfile
from typing import Any, Callable, List

import numpy as np
import torch
from fairseq import checkpoint_utils

from .copies import check_records, newest_whole_beside
from .repairs import repair
from .wrapping import shadow, words_of, wrap

logger = logging.getLogger(__name__)

CAN_CHECK = hasattr(torch.serialization, "add_safe_globals")  # torch >= 2.4


def _saved(value: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return buffer


def _cannot_load_namespaces() -> bool:
    if not CAN_CHECK:
        return False
    try:
        torch.load(_saved([argparse.Namespace(), np.float64(1)]), weights_only=True)
    except pickle.UnpicklingError:
        return True
    return False


@repair(_cannot_load_namespaces)
def allow_fairseq_checkpoints() -> None:
    """Let torch load what fairseq itself writes into a checkpoint, and nothing else.

    Fault: torch >= 2.6 loads weights only, and fairseq saves an ``argparse.Namespace`` (and numpy
    scalars with ``--eval-bleu``): generate, validate and resuming all fail.
    Versions: every fairseq. Test: tests/compat/test_repairs.py::test_checkpoint_*.
    """
    multiarray = (getattr(np, "_core", None) or np.core).multiarray
    dtypes = [type(np.dtype(kind)) for kind in (np.int64, np.float64, np.float32)]
    allowed: List[Any] = [argparse.Namespace, np.ndarray, np.dtype, *dtypes]
    for function in (multiarray._reconstruct, multiarray.scalar):
        # numpy 1 and 2 write different module names
        allowed += [_named(function, f"numpy.{p}.multiarray") for p in ("core", "_core")]
    torch.serialization.add_safe_globals(allowed)


def _named(function: Callable[..., Any], module: str) -> Callable[..., Any]:
    """The function under another module's name, by which torch's list of the allowed knows it."""

    @functools.wraps(function)
    def renamed(*args: Any) -> Any:
        return function(*args)

    renamed.__module__, renamed.__qualname__ = module, function.__name__
    return renamed


def _runs_or_advises_to() -> bool:
    load = checkpoint_utils.torch.load
    try:
        load(_saved(fractions.Fraction(1, 2)))
    except Exception as error:
        unchecked = "weights_only" in words_of(checkpoint_utils.load_checkpoint_to_cpu)
        return "weights_only" in str(error) or (unchecked and load is torch.load)
    return True


@repair(lambda: CAN_CHECK and _runs_or_advises_to())
def load_weights_only() -> None:
    """Read checkpoints without running what they hold, and say so of those that are refused.

    Fault: fairseq's main branch loads with ``weights_only=False`` since 2025-09, and torch < 2.6
    by itself: a hostile checkpoint runs its code. Where torch refuses one it advises
    ``weights_only=False``; of a torn file it speaks of zip archives; a weight with a flipped bit
    it takes, although there is a checksum; a compressed file may need any memory.
    Versions: every fairseq. Test: tests/compat/test_hostile.py::test_*,
    tests/faults/test_damaged_files.py::test_*.
    """

    def load(original: Any, file: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            _check_records(file)
            return original(file, *args, **{**kwargs, "weights_only": True})
        except MemoryError:
            raise
        except Exception as error:  # of every kind, where the file is no checkpoint
            # a torn one lets torch look for a place before its beginning
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise ValueError(_reason(_name_of(file), error)) from None

    wrap(shadow(checkpoint_utils, "torch"), "load", load)


def _check_records(file: Any) -> None:
    """torch compares no checksum. What is no zip archive it has to name itself."""
    begin = file.tell() if hasattr(file, "tell") else None
    if zipfile.is_zipfile(file):
        check_records(file)
    if begin is not None:
        file.seek(begin)


def _name_of(file: Any) -> str:
    return str(getattr(file, "name", file))


def _reason(path: str, error: Exception) -> str:
    """One line for a file that is no checkpoint, may be hostile, or is damaged."""
    text = str(error)
    foreign = re.search(r"GLOBAL ([\w.]+)", text)
    if foreign:
        return (
            f"refused to load the checkpoint {path}: it holds {foreign.group(1)}, which no "
            "fairseq checkpoint needs and which could run foreign code. Nothing was executed. "
            "Use a checkpoint written by fairseq, from a source you trust."
        )
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text:
        return (
            f"refused to load the checkpoint {path}: it is no checkpoint that fairseq writes with "
            "torch >= 1.6, and could run foreign code. Nothing was executed."
            f"{newest_whole_beside(path)}"
        )
    detail = re.split(r"\.\s|\n", text)[0] if text else "the file ends too early"
    return (
        f"cannot read the checkpoint {path}, it is damaged or incomplete "
        f"({type(error).__name__}: {detail[:100]}).{newest_whole_beside(path)}"
    )


_warned: List[str] = []


def _warn_once(path: str) -> None:
    if not _warned:
        _warned.append(path)
        logger.warning(
            "torch %s runs whatever code is in a checkpoint: load only files that you trust, "
            "or use torch >= 2.4 (loading %s)",
            torch.__version__,
            path,
        )


@repair(lambda: not CAN_CHECK and "_warn_once" not in words_of(checkpoint_utils.torch.load))
def warn_without_protection() -> None:
    """Say once that nothing is checked where torch is too old for it.

    Fault: torch < 2.4 cannot be told what a checkpoint may hold, so it loads, and runs, anything.
    Versions: torch < 2.4. Test: tests/compat/test_old_torch.py::test_*.
    """

    def load(original: Any, file: Any, *args: Any, **kwargs: Any) -> Any:
        _warn_once(_name_of(file))
        return original(file, *args, **kwargs)

    wrap(shadow(checkpoint_utils, "torch"), "load", load)
