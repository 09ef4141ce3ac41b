"""Other libraries' functions for an accelerator, those that can be imported."""

import importlib
from typing import Any, Callable, Dict, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

LIBRARIES = {  # module: the name of what to install
    "entmax": "entmax",
    "liger_kernel.transformers": "liger-kernel",
    "cut_cross_entropy": "cut-cross-entropy",
    "adasplash": "adasplash",
}
Functions = Dict[str, Callable[..., Tensor]]


def library(module: str) -> Optional[Any]:
    """A peer, or None; some fail in other ways than by not being there."""
    try:
        return importlib.import_module(module)
    except Exception:
        return None


def missing() -> Dict[str, str]:
    """What to install for the peers that are not here, by module."""
    return {module: name for module, name in LIBRARIES.items() if library(module) is None}


def mappings() -> Functions:
    """Of scores (N, V)."""
    found: Functions = {"torch.softmax": lambda z: torch.softmax(z, -1)}
    entmax, adasplash = library("entmax"), library("adasplash")
    if entmax is not None:
        found["entmax 1.3"] = lambda z: entmax.entmax15(z, -1)
    if adasplash is not None:
        found["adasplash rows"] = lambda z: adasplash.triton_entmax(z, alpha=1.5)
    return found


def losses(y: Tensor) -> Functions:
    """Of scores (N, V)."""
    found: Functions = {"F.cross_entropy": lambda z: F.cross_entropy(z, y)}
    entmax, liger = library("entmax"), library("liger_kernel.transformers")
    if entmax is not None:
        found["entmax 1.3"] = lambda z: entmax.entmax15_loss(z, y).mean()
    if liger is not None:  # it overwrites the scores with their gradient
        found["Liger"] = lambda z: liger.LigerCrossEntropyLoss()(z.clone(), y)
    return found


def output_layers(y: Tensor) -> Functions:
    """Of features (N, d) and weight (V, d)."""
    found: Functions = {"F.cross_entropy": lambda x, w: F.cross_entropy(F.linear(x, w), y)}
    cut, liger = library("cut_cross_entropy"), library("liger_kernel.transformers")
    if liger is not None:
        found["Liger"] = lambda x, w: liger.LigerFusedLinearCrossEntropyLoss()(w, x, y)
    if cut is not None:
        found["cut-cross-entropy"] = lambda x, w: cut.linear_cross_entropy(x, w, y)
    return found


def attentions(causal: bool) -> Functions:
    """Of queries, keys and values (B, H, T, d)."""
    found: Functions = {
        "SDPA": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    }
    adasplash = library("adasplash")
    if adasplash is not None:
        found["adasplash"] = lambda q, k, v: adasplash.adasplash(
            q, k, v, alpha=1.5, is_causal=causal
        )
    return found
