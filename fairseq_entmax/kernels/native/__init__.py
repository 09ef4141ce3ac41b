"""Compiled C for CPUs: float32 and 16-bit scores, and sparse gradients of an output layer."""

from .next_tokens import next_token_layer
from .output_layer import grad_features, grad_weight, pack
from .rows import entmax, entmax_backward, log_entmax, loss_backward, solve_loss, takes
from .screening import screen

__all__ = [
    "entmax",
    "entmax_backward",
    "grad_features",
    "grad_weight",
    "log_entmax",
    "loss_backward",
    "next_token_layer",
    "pack",
    "screen",
    "solve_loss",
    "takes",
]
