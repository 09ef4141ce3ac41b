"""Torch operations that never wait for the host and are float32 throughout: for accelerators.

Nothing is decided by the values of a tensor, so fake, batched and meta tensors are taken too.
"""

from .rows import (
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
