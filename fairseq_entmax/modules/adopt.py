"""Give a module that fairseq built another class, keeping its parameters and settings."""

from copy import copy
from typing import Any, Type, TypeVar

import torch.nn as nn

Module = TypeVar("Module", bound=nn.Module)


def adopt(cls: Type[Module], built: nn.Module, **attributes: Any) -> Module:
    """A ``cls`` with everything that ``built``, an instance of a base of ``cls``, holds.

    fairseq's builders hard-code their classes and change their signatures between versions. The
    adopted module has the same parameters (hence the same names in the state dict and the same
    random numbers drawn), whatever the builder did; what is added to it later ``built`` has not.

    Raises:
        TypeError: ``cls`` does not extend the class of ``built``.

    Example::

        >>> class Doubled(nn.Linear):
        ...     def forward(self, x):
        ...         return 2 * super().forward(x)
        >>> built = nn.Linear(2, 2)
        >>> adopt(Doubled, built).weight is built.weight
        True
    """
    if not issubclass(cls, type(built)):
        raise TypeError(f"{cls.__name__} does not extend {type(built).__name__}")
    module = cls.__new__(cls)
    for name, value in built.__dict__.items():  # of parameters, modules, hooks: each its own table
        module.__dict__[name] = copy(value) if isinstance(value, (dict, set)) else value
    for name, value in attributes.items():
        setattr(module, name, value)
    return module
