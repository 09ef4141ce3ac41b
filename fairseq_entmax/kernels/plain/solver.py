"""Solve for the threshold tau of alpha-entmax, row by row, in plain torch operations.

With x = (alpha - 1) (z - max z) and q = 1 / (alpha - 1), p_j = [x_j - tau]_+^q sums to one at
exactly one tau in [-1, 0). The solver needs no sort, and compiles under TorchScript (which sees
no module constants):

* alpha <= 2: g(tau) = ||[x - tau]_+||_q - 1 is convex and falls, so Newton from the left never
  overshoots; on uniform rows g is linear and one step suffices.
* alpha > 2: g has infinite slopes where the support changes, and tau is no number to compute
  with; the probability of the support's smallest entry is (``probs_from_edge``).
* long rows: the maxima of disjoint groups of entries are a subset of the row, and the tau of a
  subset never exceeds the tau of the whole. Groups whose maximum lies below that bound hold
  nothing of the support and are left out.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor

GROUP = 32  # entries per group, strided so that the maxima are a vectorised reduction
_LONG_ROW = 512
_BOUND_STEPS = 6
_BOUND_SLACK = 4e-7  # the bound is computed in float32


def _norm_step(x: Tensor, tau: Tensor, closed: Optional[float], q: Optional[Tensor]) -> Tensor:
    """One Newton step on the q-norm, alpha <= 2; q is needed where there is no closed form."""
    d = (x - tau).clamp_(min=0)
    if closed is not None and closed == 1.5:
        # vector_norm adds up in one float32 accumulator: off by 1e-3 at a million entries
        total = d.sum(-1, keepdim=True)
        norm = d.square_().sum(-1, keepdim=True).sqrt()
        return (norm - 1) * norm / total
    if closed is not None:
        return (d.sum(-1, keepdim=True) - 1) / (d > 0).sum(-1, keepdim=True).to(d.dtype)
    assert q is not None
    slope = d.pow(q - 1)  # q >= 1, so d = 0 gives 0 unless q = 1, where the product below is 0
    total = (slope * d).sum(-1, keepdim=True)
    slope_sum = torch.where(d > 0, slope, torch.zeros_like(slope)).sum(-1, keepdim=True)
    norm = total.pow(1 / q)
    return (norm - 1) / norm * total / slope_sum


def _newton(
    x: Tensor,
    tau: Tensor,
    closed: Optional[float],
    q: Optional[Tensor],
    relative_step: float = 1e-6,
    max_steps: int = 60,
) -> Tensor:
    """Newton from a lower bound until the step is negligible, then once more.

    Convergence is quadratic: the step after one that changes p by 1e-6 is exact.
    """
    for _ in range(max_steps):
        step = _norm_step(x, tau, closed, q)
        tau = tau + step
        change = step if q is None else step * q  # the change of log p
        if not bool((change > -relative_step * tau).any()):  # a NaN row never keeps it going
            break
    return tau + _norm_step(x, tau, closed, q)


def _edge(z: Tensor, alpha: Tensor) -> Tensor:
    """The smallest score in the support of every row: the last below which less than 1 lies."""
    z = z.sort(-1, descending=True).values
    inside = torch.zeros_like(z[..., :1], dtype=torch.long)
    outside = inside + z.shape[-1]
    while bool((outside - inside > 1).any()):
        middle = (inside + outside) // 2
        above = ((z - z.gather(-1, middle)) * (alpha - 1)).clamp_(min=0)
        enough = ~(above.pow(1 / (alpha - 1)).sum(-1, keepdim=True) < 1)  # also if NaN: masked
        outside = torch.where(enough, middle, outside)
        inside = torch.where(enough, inside, middle)
    return z.gather(-1, inside)


def _norm(u: Tensor, r: Tensor, alpha: Tensor) -> Tensor:
    """(u^(alpha - 1) + r^(alpha - 1))^(1 / (alpha - 1)) without overflow or underflow."""
    larger, smaller = torch.maximum(u, r), torch.minimum(u, r)
    return larger * ((smaller / larger).pow(alpha - 1).log1p() / (alpha - 1)).exp()


def probs_from_edge(z: Tensor, alpha: Tensor) -> Tensor:
    """entmax of float64 scores for alpha > 2, where one ulp of tau is large after its root.

    With e the smallest score in the support, r its probability and u_j the root
    ((alpha - 1)(z_j - e))^(1 / (alpha - 1)), every p_j is the (alpha - 1)-norm of (u_j, r). Their
    sum is convex in r with slopes between 1 and the size of the support: Newton from the right.
    """
    edge = _edge(z, alpha)
    u = ((z - edge) * (alpha - 1)).clamp(min=0).pow(1 / (alpha - 1))
    support = z >= edge
    r = 1 / (u == 0).logical_and(support).sum(-1, keepdim=True).to(z.dtype)
    p = u
    for _ in range(100):
        p = _norm(u, r, alpha) * support
        slopes = torch.where(support, (r / p).pow(alpha - 2), p)
        step = (p.sum(-1, keepdim=True) - 1) / slopes.sum(-1, keepdim=True)
        r = (r - step).clamp(min=1e-300)
        if not bool((step > 1e-15 * r).any()):
            break
    return p / p.sum(-1, keepdim=True)


def solve_threshold(x: Tensor, closed: Optional[float], q: Optional[Tensor]) -> Tensor:
    """tau of every row of x = (alpha - 1)(z - max z), shape (..., V) -> (..., 1).

    Without a closed form the exponents q = 1/(alpha - 1) >= 1 are read, shape broadcastable to
    (..., 1). x may hold -inf; a row of nothing else gives NaN.
    """
    return _newton(x, -torch.ones_like(x[..., :1]), closed, q)


def probs_from_threshold(
    x: Tensor, tau: Tensor, closed: Optional[float], q: Optional[Tensor]
) -> Tensor:
    """[x - tau]_+^q, renormalised unless the closed form already sums to one."""
    d = (x - tau).clamp_(min=0)
    if closed is not None:
        return d.square_() if closed == 1.5 else d
    assert q is not None
    p = d.pow_(q)
    return p / p.sum(-1, keepdim=True)


def _lower_bound(maxima: Tensor, closed: Optional[float], q: Optional[Tensor]) -> Tensor:
    """A tau that no row's true tau lies below, from the scaled maxima of its groups."""
    tau = -torch.ones_like(maxima[..., :1])
    if q is not None and bool((q < 1).any()):
        # d^q >= d on [0, 1] for q <= 1: the sparsemax bound holds there too
        if bool((q <= 1).all()):
            closed, q = 2.0, None
        else:
            q = q.clamp(min=1)
    for _ in range(_BOUND_STEPS):
        tau = tau + _norm_step(maxima, tau, closed, q)
    return tau - _BOUND_SLACK


def select_candidates(
    z: Tensor, scale: Tensor, closed: Optional[float], q: Optional[Tensor]
) -> Tuple[Tensor, Optional[Tensor]]:
    """Row maxima (N, 1) and columns (N, C) that hold every row's support; None means all columns.

    scale is alpha - 1, float64, shape broadcastable to (N, 1). A maximum that is not finite
    makes all columns candidates.
    """
    n_columns = z.shape[1]
    if n_columns < _LONG_ROW:
        return z.amax(1, keepdim=True), None
    n_groups = n_columns // GROUP
    main = n_groups * GROUP
    maxima = z[:, :main].unflatten(1, [GROUP, n_groups]).amax(1)
    largest = maxima.amax(1, keepdim=True)
    if main < n_columns:
        largest = torch.maximum(largest, z[:, main:].amax(1, keepdim=True))
    scaled = ((maxima.double() - largest.double()) * scale).float()
    exponent = q if q is None else q.float()
    inside = scaled > _lower_bound(scaled, closed, exponent)
    width = int(inside.sum(1).max())
    if width * GROUP * 4 > n_columns or not bool(largest.isfinite().all()):
        return largest, None
    groups = scaled.topk(width, 1, sorted=False).indices
    offsets = torch.arange(GROUP, device=z.device) * n_groups
    columns = (groups.unsqueeze(-1) + offsets).flatten(1)
    if main < n_columns:
        tail = torch.arange(main, n_columns, device=z.device)
        columns = torch.cat([columns, tail.expand(z.shape[0], -1)], 1)
    return largest, columns
