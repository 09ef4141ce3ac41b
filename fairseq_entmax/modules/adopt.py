"""Give a module that fairseq built another class, keeping its parameters and settings."""

from typing import Any, Type, TypeVar

import torch.nn as nn

Module = TypeVar("Module", bound=nn.Module)


def adopt(cls: Type[Module], built: nn.Module, **attributes: Any) -> Module:
    """A ``cls`` with everything that ``built``, an instance of a base of ``cls``, holds.

    fairseq's builders hard-code their classes and change their signatures between versions. The
    adopted module has the same parameters (hence the same names in the state dict and the same
    random numbers drawn), whatever the builder did.

    Raises:
        TypeError: ``cls`` does not extend the class of ``built``.
    """
    if not issubclass(cls, type(built)):
        raise TypeError(f"{cls.__name__} does not extend {type(built).__name__}")
    module = cls.__new__(cls)
    module.__dict__.update(built.__dict__)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module
