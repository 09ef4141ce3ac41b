"""Triton kernels for NVIDIA GPUs of compute capability 8.0 and later: float32 within, alpha <= 2.

Triton comes with torch's CUDA wheels. It is imported when the first kernel is launched; without it
:mod:`..device` does the work. Proven in Triton's interpreter and compiled ahead of time;
docs/gpu.md says what has been measured.
"""

import torch
from torch import Tensor

from ..contract import has_storage
from . import output_layer
from .launch import (
    entmax,
    entmax_backward,
    log_entmax,
    loss_backward,
    next_token_layer,
    solve_loss,
    takes,
)
from .machine import TYPES, serves
from .next_tokens import swept_layer
from .output_layer import grad_features, grad_weight, pack, solve_layer


def takes_layer(x: Tensor, weight: Tensor) -> bool:
    """Features and weight of one 16-bit type or float32 on such a GPU, outside of graph capture:
    the host asks once how many rows are left for dense products.
    """
    if not (x.is_cuda and has_storage(x) and x.dtype == weight.dtype and x.dtype in TYPES):
        return False
    return serves(x.device) and not torch.cuda.is_current_stream_capturing()


__all__ = [
    "entmax",
    "entmax_backward",
    "grad_features",
    "grad_weight",
    "log_entmax",
    "loss_backward",
    "next_token_layer",
    "output_layer",
    "pack",
    "solve_layer",
    "solve_loss",
    "swept_layer",
    "takes",
    "takes_layer",
]
