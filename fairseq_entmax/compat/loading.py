"""Models of checkpoints that cannot be built or filled: one line, and no more memory than due."""

import contextlib
import math
import os
from typing import Any, Iterator, Mapping

from fairseq import checkpoint_utils
from torch import nn

from .endings import TRACEBACK, raised_here
from .repairs import repair
from .wrapping import words_of, wrap

_TIMES = 10  # elements of a model for each that its file has room for, in 16 bits
_LEAST = 10_000_000  # elements that any model may have
_OF_ANY = 1024  # elements: the memory that a parameter takes for itself


class _Room:
    """Elements that the parameters of the model have which is being built, and may have."""

    taken, limit = 0, math.inf


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Refuse a parameter before it is filled: until then its memory is only promised."""
    register = nn.Module.register_parameter

    def counted(self: nn.Module, name: str, param: Any) -> None:
        if param is not None:
            _Room.taken += max(param.numel(), _OF_ANY)
        if _Room.taken > _Room.limit:
            raise ValueError(
                f"its settings ask for a model of more than {_Room.limit:,} numbers, far more than "
                "the file holds"
            )
        register(self, name, param)

    nn.Module.register_parameter = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
        _Room.taken, _Room.limit = 0, math.inf


def _allow(path: str) -> None:
    """Room for the model of this file."""
    size = os.path.getsize(path) if os.path.exists(path) else math.inf
    _Room.taken, _Room.limit = 0, _LEAST + _TIMES * size // 2


def _check_weights(state: Any) -> None:
    """A weight is a number with a fraction; torch would round others without a word."""
    weights = state.get("model", {})
    if not isinstance(weights, Mapping):
        raise ValueError(f"its model must be a dictionary, got {type(weights).__name__}")
    for name, value in weights.items():
        kind = getattr(value, "dtype", None)
        if str(name).endswith(("weight", "bias")) and not getattr(kind, "is_floating_point", True):
            raise ValueError(f"its weight {name} must be of floating point, got {kind}")


@contextlib.contextmanager
def _in_one_line(paths: str) -> Iterator[None]:
    """A ValueError, or an OSError of the same kind, that names the file and what is wrong."""
    try:
        yield
    except Exception as error:
        ours = raised_here(error.__traceback__)
        if ours and paths in str(error):
            raise
        if isinstance(error, OSError):
            raise type(error)(f"cannot load the model of {paths}: {error}") from error
        if ours:
            raise ValueError(f"cannot load the model of {paths}: {error}") from error
        raise ValueError(
            f"cannot load the model of {paths} ({_shortened(error)}): it was trained on other "
            f"data or for other code, or it is damaged; {TRACEBACK}=1 shows where"
        ) from error


def _shortened(error: Exception) -> str:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return words if len(words) <= 200 else words[:197] + "..."


@repair(lambda: "_in_one_line" not in words_of(checkpoint_utils.load_model_ensemble_and_task))
def say_which_model_cannot_be_loaded() -> None:
    """Say of a checkpoint whose settings or weights are none which it is and why, in one line.

    Fault: settings of another type, weights that are none, other data: 30 to 60 lines of traceback
    which name no file. Settings of a huge model take memory until the system kills the command;
    weights that are whole numbers are taken, and the answers are wrong.
    Versions: every fairseq. Test: tests/faults/test_hostile_files.py::test_*.
    """

    def load_checkpoint_to_cpu(original: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        with _in_one_line(str(path)):
            state = original(path, *args, **kwargs)
            _check_weights(state)
            _allow(str(path))
            return state

    def load_model_ensemble_and_task(
        original: Any, filenames: Any, *args: Any, **kwargs: Any
    ) -> Any:
        with _bounded(), _in_one_line(":".join(map(str, filenames))):
            return original(filenames, *args, **kwargs)

    wrap(checkpoint_utils, "load_checkpoint_to_cpu", load_checkpoint_to_cpu)
    wrap(checkpoint_utils, "load_model_ensemble_and_task", load_model_ensemble_and_task)
