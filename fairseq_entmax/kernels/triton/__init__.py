"""Triton kernels for NVIDIA GPUs of compute capability 8.0 and later.

Triton comes with torch's CUDA wheels. It is imported when the first kernel is launched.
"""

import importlib.util
import os
from functools import lru_cache

import torch
from torch import Tensor

from ..contract import has_storage
from . import output_layer
from .next_tokens import next_token_layer
from .output_layer import grad_features, grad_weight, pack, solve_layer

_TYPES = (torch.float32, torch.bfloat16, torch.float16)


@lru_cache(maxsize=None)
def _runs_on(device: torch.device) -> bool:
    """Whether this machine's Triton compiles for the device."""
    if torch.version.cuda is None or importlib.util.find_spec("triton") is None:
        return False
    from triton import __version__ as version

    recent = tuple(int(part) for part in version.split(".")[:2]) >= (3, 2)
    return recent and torch.cuda.get_device_capability(device) >= (8, 0)


def takes_layer(x: Tensor, weight: Tensor) -> bool:
    """Features and weight of one 16-bit type or float32 on such a GPU, outside of graph capture:
    the host asks once how many rows are left for dense products.
    """
    if not (x.is_cuda and has_storage(x) and x.dtype == weight.dtype and x.dtype in _TYPES):
        return False
    if os.environ.get("FAIRSEQ_ENTMAX_KERNELS") == "off":
        return False
    return _runs_on(x.device) and not torch.cuda.is_current_stream_capturing()


__all__ = [
    "grad_features",
    "grad_weight",
    "next_token_layer",
    "output_layer",
    "pack",
    "solve_layer",
    "takes_layer",
]
