"""How names inside fairseq are replaced, and how a function is read without being called."""

import functools
import types
from typing import Any, Callable, Set


def wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Replace ``owner.name`` by ``wrapper(original, *args, **kwargs)``.

    Not for what TorchScript compiles: it would read the original's source in our globals.
    """
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(owner, name, wrapped)


class Shadow(types.ModuleType):
    """A module's names under one roof where some of them may be replaced."""

    def __init__(self, module: types.ModuleType) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(module.__dict__)
        self.__dict__["_shadowed"] = module

    def __getattr__(self, name: str) -> Any:  # what the module has got since
        return getattr(self.__dict__["_shadowed"], name)


def shadow(owner: Any, name: str) -> Shadow:
    """Let ``owner`` see its import ``name`` through a :class:`Shadow`, the same at each call."""
    if not isinstance(getattr(owner, name), Shadow):
        setattr(owner, name, Shadow(getattr(owner, name)))
    return getattr(owner, name)


def words_of(function: Any, keywords: bool = True) -> Set[str]:
    """The names that a Python function mentions, with the functions inside it and behind it.

    Args:
        keywords: also the names of keyword arguments that it passes.
    """
    words: Set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        words.update(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                codes.append(constant)
            elif keywords and isinstance(constant, tuple):
                words.update(word for word in constant if isinstance(word, str))
    for cell in function.__closure__ or ():
        if isinstance(cell.cell_contents, types.FunctionType):
            words |= words_of(cell.cell_contents, keywords)
    return words
