"""Rows of scores to probabilities and losses, and back, in chunks that bound the memory."""

import math
from typing import Iterator, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from ..contract import NEAR_ONE, SolvedRows
from ..dense_layer import DenseLayer
from ..formulas import entropy, jacobian_product, slopes
from .solver import probs_from_edge, probs_from_threshold, select_candidates, solve_threshold

_CHUNK_ELEMENTS = {"cpu": 1 << 21}  # a few MB of temporaries stay in the cache
_CHUNK_ELEMENTS_DEVICE = 1 << 24


class _Chunk(NamedTuple):
    """Some rows, solved: p (N, C) at `columns` (N, C), or at all columns if None."""

    p: Tensor
    columns: Optional[Tensor]
    largest: Tensor  # (N, 1), the maximum of each row
    tau: Tensor  # (N, 1)

    def at(self, y: Tensor) -> Tensor:
        """The probability of class y in each row, (N,)."""
        if self.columns is None:
            return self.p.gather(1, y.unsqueeze(1)).squeeze(1)
        return self.p.masked_fill(self.columns != y.unsqueeze(1), 0.0).sum(1)


def takes(z: Tensor) -> bool:
    """Any tensor of any device."""
    return True


def row_chunks(n_rows: int, n_columns: int, alpha: Tensor) -> Iterator[Tuple[slice, Tensor]]:
    """Slices of the rows of a matrix, each with its alpha."""
    budget = _CHUNK_ELEMENTS.get(alpha.device.type, _CHUNK_ELEMENTS_DEVICE)
    step = max(1, budget // max(1, n_columns))
    for start in range(0, n_rows, step):
        rows = slice(start, min(start + step, n_rows))
        yield rows, alpha if alpha.shape[0] == 1 else alpha[rows]


def _solve(z: Tensor, alpha: Tensor, closed: Optional[float]) -> _Chunk:
    scale = (alpha - 1).clamp(min=NEAR_ONE)
    q = None if closed else 1 / scale
    largest, columns = select_candidates(z, scale, closed, q)
    candidates = z if columns is None else z.gather(1, columns)
    # where a closed form needs every column, float32 is exact enough and half the memory
    narrow = closed and columns is None and z.dtype != torch.float64
    shifted = _shifted(candidates, largest, torch.float32 if narrow else torch.float64)
    at_most_two = q if q is None else q.clamp(min=1)
    tau = solve_threshold(shifted * scale.to(shifted.dtype), closed, at_most_two)
    p = _probs(candidates, shifted, largest, tau, alpha, closed)
    return _Chunk(p, columns, largest, tau)


def _shifted(z: Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
    return z.to(dtype) - largest.to(dtype)


def _probs(
    z: Tensor,
    shifted: Tensor,
    largest: Tensor,
    tau: Tensor,
    alpha: Tensor,
    closed: Optional[float],
) -> Tensor:
    """The probabilities with this threshold (up to alpha = 2), also of dead and broken rows."""
    scale = (alpha - 1).clamp(min=NEAR_ONE)
    x = shifted * scale.to(shifted.dtype)
    p = probs_from_threshold(x, tau.to(x.dtype), closed, None if closed else 1 / scale)
    if not closed and bool((alpha > 2).any()):
        p = torch.where(alpha > 2, probs_from_edge(z.double(), alpha.clamp(min=2)), p)
    if not closed and bool((alpha - 1 < NEAR_ONE).any()):
        p = torch.where(alpha - 1 < NEAR_ONE, torch.softmax(shifted, 1), p)
    if not bool(largest.isfinite().all()):
        dead = largest == -math.inf
        p = p.masked_fill(dead, 0.0).masked_fill(~(dead | largest.isfinite()), math.nan)
    return p


def entmax(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.entmax`."""
    probs, alpha = torch.zeros_like(z, memory_format=torch.contiguous_format), alpha.to(z.device)
    for rows, a in row_chunks(z.shape[0], z.shape[1], alpha):
        solved = _solve(z[rows], a, closed)
        if solved.columns is None:
            probs[rows] = solved.p.to(z.dtype)
        else:
            probs[rows].scatter_(1, solved.columns, solved.p.to(z.dtype))
    return probs


def log_entmax(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.log_entmax`."""
    probs = entmax(z, alpha, closed)
    if probs.device.type != "cpu":  # where zeros cost no more, and to find them would wait
        return probs.log()
    flat = probs.view(-1)
    support = flat.nonzero().squeeze(1)
    log_probs = torch.full_like(flat, -math.inf)
    log_probs[support] = flat[support].log()
    return log_probs.view(probs.shape)


def next_token_layer(
    weight: Tensor, bias: Optional[Tensor], alpha: float, temperature: float
) -> DenseLayer:
    """As :meth:`.RowKernels.next_token_layer`."""
    return DenseLayer(log_entmax, weight, bias, alpha, temperature)


def entmax_backward(probs: Tensor, grad: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.entmax_backward`; differentiable any number of times."""
    # float64 is needed where s = p^(2 - alpha) spans many magnitudes
    dtype = torch.promote_types(probs.dtype, torch.float32) if closed else torch.float64
    s = slopes(probs.to(dtype), alpha.to(probs.device) - 1, closed)
    grad = grad.to(dtype)
    if not closed:  # the gradient of the largest slope would cancel against the mean
        grad = grad - grad.gather(1, s.detach().argmax(1, keepdim=True))
    return jacobian_product(s, grad).to(probs.dtype)


def _loss(z: Tensor, z_y: Tensor, solved: _Chunk, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """p.(z - max) + H(p) + max - z_y of some rows, (N,)."""
    p, columns, largest, tau = solved
    candidates = z if columns is None else z.gather(1, columns)
    shifted = candidates.to(p.dtype) - largest.to(p.dtype)
    positive, nothing = p > 0, torch.zeros_like(p)
    dot = torch.where(positive, p * shifted, nothing).sum(1)
    gap = (largest.to(p.dtype) - z_y.to(p.dtype)).squeeze(1)
    loss = dot + entropy(p, (alpha - 1).clamp(min=NEAR_ONE), closed) + gap
    if closed:  # one ulp of tau is in every p: out by the loss's slope along the support
        excess = torch.where(positive, p, nothing).sum(1) - positive.any(1).to(p.dtype)
        slope = tau.squeeze(1).to(p.dtype) / (closed - 1)
        loss = loss - torch.where(excess == 0, excess, excess * slope)
    return loss.clamp(min=0)  # rounding may cross 0


def solve_loss(
    z: Tensor, target: Tensor, alpha: Tensor, closed: Optional[float], capacity: int
) -> SolvedRows:
    """As :meth:`.RowKernels.solve_loss`."""
    dtype, alpha = torch.promote_types(z.dtype, torch.float32), alpha.to(z.device)
    safe_y = target.clamp(min=0)
    z_y = z.gather(1, safe_y.unsqueeze(1))
    n = len(target)
    out = SolvedRows(
        target=target,
        n_kept=target.new_empty(n, dtype=torch.int32),
        columns=target.new_empty((n, capacity), dtype=torch.int32),
        values=z.new_empty((n, capacity), dtype=dtype),
        loss=z.new_empty(n, dtype=dtype),
        support_size=target.new_empty(n),
        target_probs=z.new_empty(n, dtype=dtype),
        correct=target.new_empty(n, dtype=torch.bool),
        tau=z.new_empty(n, dtype=torch.float64),
        largest=z.new_empty(n),
    )
    for rows, a in row_chunks(z.shape[0], z.shape[1], alpha):
        solved = _solve(z[rows], a, closed)
        largest = solved.largest.squeeze(1)
        outside = (target[rows] < 0) | (largest == -math.inf)
        solved.p.masked_fill_(outside.unsqueeze(1), 0.0)
        loss = _loss(z[rows], z_y[rows], solved, a, closed)
        tau = solved.tau.squeeze(1).masked_fill(~largest.isfinite(), math.nan)
        out.loss[rows] = loss.masked_fill(outside, 0.0).to(dtype)
        out.target_probs[rows] = solved.at(safe_y[rows]).to(dtype)
        out.correct[rows] = (z_y[rows].squeeze(1) >= largest) & ~outside
        out.tau[rows] = tau.double().masked_fill(outside, math.inf)
        out.largest[rows] = largest
        _keep_support(out, rows, solved)
    return out


def _keep_support(out: SolvedRows, rows: slice, solved: _Chunk) -> None:
    """The nonzero probabilities of some rows (a NaN counts), where they fit."""
    inside = solved.p != 0
    size = inside.sum(1)
    fits = size <= out.columns.shape[1]
    out.support_size[rows] = (solved.p > 0).sum(1)
    out.n_kept[rows] = torch.where(fits, size, -torch.ones_like(size)).int()
    row, position = (inside & fits.unsqueeze(1)).nonzero(as_tuple=True)
    before = (size * fits).cumsum(0) - size * fits
    slot = torch.arange(len(row), device=row.device) - before[row]
    column = position if solved.columns is None else solved.columns[row, position]
    out.columns[rows][row, slot] = column.int()
    out.values[rows][row, slot] = solved.p[row, position].to(out.values.dtype)


def loss_backward(
    z: Tensor, alpha: Tensor, closed: Optional[float], solved: SolvedRows, grad: Tensor
) -> Tensor:
    """As :meth:`.RowKernels.loss_backward`."""
    grad, alpha = grad.to(solved.values.dtype), alpha.to(z.device)
    out = torch.zeros(z.shape, dtype=grad.dtype, device=z.device)
    slots = torch.arange(solved.columns.shape[1], device=z.device)
    row, slot = (slots < solved.n_kept.unsqueeze(1)).nonzero(as_tuple=True)
    out[row, solved.columns[row, slot].long()] = solved.values[row, slot] * grad[row]
    again = (solved.n_kept < 0).nonzero().squeeze(1)
    again_alpha = alpha if alpha.shape[0] == 1 else alpha[again]
    for part, a in row_chunks(len(again), z.shape[1], again_alpha):
        rows = again[part]
        largest, tau = solved.largest[rows].unsqueeze(1), solved.tau[rows].unsqueeze(1)
        shifted = _shifted(z[rows], largest, grad.dtype if closed else torch.float64)
        p = _probs(z[rows], shifted, largest, tau, a, closed)
        out[rows] = (p * grad[rows].unsqueeze(1)).to(out.dtype)
    gold = grad.masked_fill(solved.tau == math.inf, 0.0).unsqueeze(1)
    return out.scatter_add_(1, solved.target.clamp(min=0).unsqueeze(1), -gold).to(z.dtype)
