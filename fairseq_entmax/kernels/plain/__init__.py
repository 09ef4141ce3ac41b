"""Plain torch: on any device, for any floating type, differentiable where the contract is."""

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
