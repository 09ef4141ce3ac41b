"""alpha-entmax of the rows of a matrix: the step between the threshold solver and autograd.

A row is *dead* when all its scores are -inf (its probabilities are zeros) and *broken* when it
holds a NaN or +inf (its probabilities are NaN, as softmax's would be).
"""

import math
from typing import Iterator, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .solver import probs_from_threshold, select_candidates, solve_threshold

_CHUNK_ELEMENTS = {"cpu": 1 << 21}  # a few MB of temporaries stay in the cache
_CHUNK_ELEMENTS_DEVICE = 1 << 26
NEAR_ONE = 1e-8  # softmax is off by (alpha - 1) log(p)^2 / 2: float32 precision here


class Rows(NamedTuple):
    """Probabilities of some rows: p (N, C) at `columns` (N, C), or at all columns if None."""

    p: Tensor
    columns: Optional[Tensor]
    largest: Tensor  # (N, 1), the maximum of each row


def closed_form(alpha: float) -> float:
    """The alpha itself if the solver has a closed form for it, else 0."""
    return alpha if alpha in (1.5, 2.0) else 0.0


def _solve(z: Tensor, alpha: Tensor, closed: float) -> Rows:
    scale = (alpha - 1).clamp(min=NEAR_ONE)
    q = None if closed else 1 / scale
    largest, columns = select_candidates(z, scale, closed, q)
    # where a closed form needs every column, float32 is exact enough and half the memory
    narrow = closed and columns is None and z.dtype != torch.float64
    dtype = torch.float32 if narrow else torch.float64
    shifted = (z if columns is None else z.gather(1, columns)).to(dtype) - largest.to(dtype)
    x = shifted * scale.to(dtype)
    p = probs_from_threshold(x, solve_threshold(x, closed, q), closed, q)
    if not closed and bool((alpha - 1 < NEAR_ONE).any()):
        p = torch.where(alpha - 1 < NEAR_ONE, torch.softmax(shifted, 1), p)
    if not bool(largest.isfinite().all()):
        dead = largest == -math.inf
        p = p.masked_fill(dead, 0.0).masked_fill(~(dead | largest.isfinite()), math.nan)
    return Rows(p, columns, largest)


def solve_rows(z: Tensor, alpha: Tensor, closed: float = 0.0) -> Iterator[Tuple[slice, Rows]]:
    """Solve z (N, V) in chunks of rows.

    Args:
        z: scores of any floating type; the result is float64 or float32.
        alpha: float64, (N, 1) or (1, 1).
        closed: 1.5 or 2 when all of alpha has that value.
    """
    n_rows, n_columns = z.shape
    budget = _CHUNK_ELEMENTS.get(z.device.type, _CHUNK_ELEMENTS_DEVICE)
    step = max(1, budget // max(1, n_columns))
    for start in range(0, n_rows, step):
        rows = slice(start, min(start + step, n_rows))
        yield rows, _solve(z[rows], alpha if alpha.shape[0] == 1 else alpha[rows], closed)
