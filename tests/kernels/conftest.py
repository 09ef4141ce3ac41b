"""Memory that nobody has written holds nonsense, not zeros by chance."""

import math
import os

import pytest
import torch

if not torch.cuda.is_available():
    # read when triton is imported, by whichever test comes first
    os.environ.setdefault("TRITON_INTERPRET", "1")


def spoiled(make):
    def wrapper(*args, **kwargs):
        tensor = make(*args, **kwargs)
        if tensor.is_floating_point():
            return tensor.fill_(math.nan)
        return tensor.fill_(True if tensor.dtype == torch.bool else torch.iinfo(tensor.dtype).max)

    return wrapper


@pytest.fixture(autouse=True)
def spoil_empty_tensors(monkeypatch):
    """torch.empty and its kin, as back ends call them to write their results into."""
    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch.Tensor, "new_empty"),
    ):
        monkeypatch.setattr(owner, name, spoiled(getattr(owner, name)))
