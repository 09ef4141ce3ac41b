"""Loading and keeping checkpoints: what fairseq wrote is read, nothing else, and none is torn."""

import argparse
import contextlib
import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Any, List

import numpy as np
import torch
from fairseq import checkpoint_utils

from .repairs import MARK, repair, wrap

logger = logging.getLogger(__name__)

_PROTECTED = hasattr(torch.serialization, "add_safe_globals")  # torch >= 2.4
_TORN = ("zip archive", "unexpected EOF", "wrong byte size", "central directory", "corrupted")


@repair(lambda: _PROTECTED)
def allow_fairseq_checkpoints() -> None:
    """Let torch load what fairseq itself writes into a checkpoint, and nothing else.

    Fault: torch >= 2.6 loads weights only, and fairseq saves an ``argparse.Namespace`` (and numpy
    scalars with ``--eval-bleu``): generate, validate and resuming all fail.
    Versions: every fairseq. Test: tests/compat/test_repairs.py::test_checkpoint_*.
    """
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


class _SafeTorch:
    """``torch`` whose ``load`` reads data and runs no code."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return torch.load(file, *args, **{**kwargs, "weights_only": True})
        except (OSError, MemoryError):
            raise
        except Exception as error:  # of every kind, where the file is no checkpoint
            raise ValueError(_refusal(str(getattr(file, "name", file)), error)) from None


@repair(lambda: _PROTECTED)
def load_weights_only() -> None:
    """Read checkpoints without running what they hold, and say so of those that are refused.

    Fault: fairseq's main branch loads with ``weights_only=False`` since 2025-09, and torch < 2.6
    by itself: a hostile checkpoint runs its code. Where torch refuses one it advises
    ``weights_only=False``; of a torn file it speaks of zip archives.
    Versions: every fairseq. Test: tests/compat/test_hostile.py.
    """
    checkpoint_utils.torch = _SafeTorch()


@repair(lambda: not _PROTECTED)
def warn_without_protection() -> None:
    """Say once, when a checkpoint is loaded, that this torch does not protect.

    Fault: torch < 2.4 runs whatever a checkpoint holds.
    Versions: every fairseq. Test: tests/compat/test_list.py.
    """
    told: List[bool] = []

    def load(original: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        if not told:
            told.append(True)
            logger.warning(
                "torch %s cannot load checkpoints safely: one from a source that you do not trust "
                "can run code; torch >= 2.4 refuses it",
                torch.__version__,
            )
        return original(path, *args, **kwargs)

    wrap(checkpoint_utils, "load_checkpoint_to_cpu", load)


def _refusal(path: str, error: Exception) -> str:
    """What to say of a file that torch did not read."""
    message = str(error)
    if isinstance(error, EOFError) or any(sign in message for sign in _TORN):
        return f"cannot read the checkpoint {path}: the file is torn{_whole_one(path)}"
    foreign = re.search(r"GLOBAL ([\w.]+)", message)
    holds = (
        f"it holds {foreign.group(1)}, which no fairseq checkpoint needs and which could run "
        "foreign code"
        if foreign
        else "it is not in the format that fairseq writes"
    )
    return (
        f"refused to load the checkpoint {path}: {holds}. Nothing was executed. "
        "Use a checkpoint written by fairseq, from a source you trust."
    )


def _whole_one(path: str) -> str:
    """Names the newest checkpoint beside ``path`` that can be read."""
    others = [other for other in Path(path).parent.glob("*.pt") if str(other) != str(path)]
    for other in sorted(others, key=os.path.getmtime, reverse=True):
        with contextlib.suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(other) as archive:
            if archive.testzip() is None:
                return f". The newest whole one beside it: --restore-file {other}"
    return ", and no whole one is beside it"


def _copies_in_place() -> bool:
    manager = checkpoint_utils.PathManager
    return hasattr(manager, "copy") and hasattr(manager, "rename")


@repair(_copies_in_place)
def copy_checkpoints_whole() -> None:
    """Give a copied checkpoint its name when all of it is written.

    Fault: ``checkpoint_last.pt`` is copied in place from the first checkpoint written: a kill or a
    full disk during that leaves a torn file, and no training goes on from it.
    Versions: every fairseq. Test: tests/compat/test_torn.py.
    """

    manager = checkpoint_utils.PathManager
    stock = manager.copy
    if hasattr(stock, MARK):
        return

    def copy(source: str, target: str, *args: Any, **kwargs: Any) -> bool:
        if "://" in str(target):  # another storage renames in its own way
            return stock(source, target, *args, **kwargs)
        part = f"{target}.part"
        try:
            copied = stock(source, part, *args, **kwargs)
            os.replace(part, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(part)
        return copied

    setattr(copy, MARK, True)
    manager.copy = staticmethod(copy)
