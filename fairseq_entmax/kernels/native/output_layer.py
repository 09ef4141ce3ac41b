"""The sparse gradients of csrc/output_layer.c: products with G = p - e_y in O(support)."""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from ..contract import SolvedRows, SparseRows
from .library import call, pointer, threads
from .rows import fields


def pack(solved: SolvedRows) -> SparseRows:
    """As :meth:`.OutputLayerKernels.pack`."""
    counted = (solved.target >= 0) & (solved.largest.isfinite()) & (solved.tau < float("inf"))
    sizes = solved.n_kept + (counted & (solved.target_probs == 0)).int()
    start = torch.zeros(len(sizes) + 1, dtype=torch.int64)
    torch.cumsum(sizes, 0, out=start[1:])
    n_entries = int(start[-1])
    column, value = torch.empty(n_entries, dtype=torch.int32), torch.empty(n_entries)
    call("entmax_pack", fields(solved), len(sizes), pointer(start), pointer(column), pointer(value))
    return SparseRows(start, column, value)


def _scaled(g: SparseRows, scale: Tensor) -> Tuple[Any, ...]:
    return (*map(pointer, g), pointer(scale), len(g.start) - 1)


def grad_features(g: SparseRows, scale: Tensor, weight: Tensor) -> Tensor:
    """As :meth:`.OutputLayerKernels.grad_features`."""
    weight = weight.contiguous()
    out = torch.empty(len(g.start) - 1, weight.shape[1])
    work = threads(len(g.column) * weight.shape[1])
    matrix = (pointer(weight), weight.shape[1])
    call("entmax_grad_features", *_scaled(g, scale), *matrix, pointer(out), work)
    return out


def grad_weight(
    g: SparseRows,
    scale: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    *,
    accumulate: bool,
) -> None:
    """As :meth:`.OutputLayerKernels.grad_weight`."""
    features = features.contiguous()
    call(
        "entmax_grad_weight",
        *_scaled(g, scale),
        weight.shape[0],
        pointer(features),
        features.shape[1],
        accumulate,
        pointer(weight),
        pointer(bias),
        threads(weight.numel()),
    )
