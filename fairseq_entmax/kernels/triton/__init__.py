"""Triton kernels for GPUs: float32 and 16-bit scores, alpha <= 2, float32 within.

Written and tested for correctness in Triton's interpreter and for code quality by compiling ahead
of time; docs/gpu.md says what has been measured. Without Triton :mod:`..device` does the work.
"""

from .launch import (
    entmax,
    entmax_backward,
    log_entmax,
    loss_backward,
    next_token_layer,
    solve_loss,
    takes,
)

__all__ = [
    "entmax",
    "entmax_backward",
    "log_entmax",
    "loss_backward",
    "next_token_layer",
    "solve_loss",
    "takes",
]
