"""The differentiable step of ``entmax_loss``: rows of scores to losses, and back.

Forward keeps the probabilities on their support only; the dense gradient p - e_y is written once.
"""

import math
from typing import Any, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .dispatch import compiled
from .mapping import entmax
from .rows import NEAR_ONE, Rows, solve_rows

_KEPT_ENTRIES = 512  # of a row's support; what is longer is written again from its threshold


def counted_rows(z: Tensor, y: Tensor, ignore_index: int) -> Tuple[Tensor, Tensor]:
    """Which rows count (not ignored, not fully masked), and targets that are valid in all."""
    kept = (y != ignore_index) & (z.amax(1) != -math.inf)
    return kept, y.masked_fill(~kept, 0)


def smoothing_weights(z: Tensor, ignore_index: int, dtype: torch.dtype) -> Tensor:
    """1 / n on the n classes of each row that label smoothing spreads over, else 0."""
    smoothed = z > -math.inf
    if 0 <= ignore_index < z.shape[1]:
        smoothed[:, ignore_index] = False
    return smoothed.to(dtype) / smoothed.sum(1, keepdim=True).clamp(min=1)


def _entropy(p: Tensor, alpha: Tensor, closed: float) -> Tensor:
    """H_alpha of each row, (N,); expm1 keeps it exact near alpha = 1."""
    if closed == 1.5:
        return (1 - (p * p.sqrt()).sum(1)) / 0.75
    if closed == 2.0:
        return (1 - p.square().sum(1)) / 2
    gap = (alpha - 1).clamp(min=NEAR_ONE)
    log_p = torch.where(p > 0, p, torch.ones_like(p)).log()
    return -(p * torch.expm1(gap * log_p)).sum(1) / (gap * (1 + gap)).squeeze(1)


def _entropy_alpha_derivative(p: Tensor, alpha: Tensor) -> Tensor:
    """dH_alpha(p)/dalpha at fixed p, (N,): by the envelope theorem, also the loss's."""
    p = p.double()
    gap = (alpha - 1).clamp(min=NEAR_ONE)
    log_p = torch.where(p > 0, p, torch.ones_like(p)).log()
    growth = torch.expm1(gap * log_p)
    scale = gap * (1 + gap)
    by_power = -(p * log_p * (growth + 1)).sum(1, keepdim=True) / scale
    by_scale = (p * growth).sum(1, keepdim=True) * (1 + 2 * gap) / scale**2
    return (by_power + by_scale).squeeze(1)


class _Solved(NamedTuple):
    """The unsmoothed loss of all rows, and what backward needs to write p again."""

    loss: Tensor
    support_size: Tensor
    target_probs: Tensor
    correct: Tensor
    alpha_slope: Tensor
    saved: List[Tensor]


class EntmaxLoss(torch.autograd.Function):
    """Keeps p on its support only; the dense gradient is written once, in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        y: Tensor,
        alpha: Tensor,
        closed: float,
        ignore_index: int,
        label_smoothing: float,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.compiled = not ctx.needs_input_grad[2] and compiled(z) is not None
        if ctx.compiled:
            z = compiled(z).rows_of(z)  # type: ignore[union-attr]
            solved = _solve_compiled(z, y.masked_fill(y == ignore_index, -1), alpha)
        else:
            solved = _solve_torch(z, y, alpha, closed, ignore_index, ctx.needs_input_grad[2])
        loss = solved.loss
        if label_smoothing:
            kept, safe_y = counted_rows(z, y, ignore_index)
            weights = smoothing_weights(z, ignore_index, loss.dtype)
            z_y = z.gather(1, safe_y.unsqueeze(1)).squeeze(1).to(loss.dtype)
            mean = (z.masked_fill(weights == 0, 0.0) * weights).sum(1)
            loss = loss + (label_smoothing * (z_y - mean)).masked_fill(~kept, 0.0)
        ctx.save_for_backward(z, y, alpha, solved.alpha_slope, *solved.saved)
        ctx.options = (closed, ignore_index, label_smoothing)
        ctx.mark_non_differentiable(solved.support_size, solved.target_probs, solved.correct)
        return loss, solved.support_size, solved.target_probs, solved.correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Tuple[Optional[Tensor], ...]:
        z, y, alpha, alpha_slope, *saved = ctx.saved_tensors
        closed, ignore_index, label_smoothing = ctx.options
        if ctx.compiled and not label_smoothing and not torch.is_grad_enabled():
            # the kernels know which rows count: no pass over the scores to find out
            return _compiled_gradient(z, alpha, saved, grad), None, None, None, None, None
        kept, safe_y = counted_rows(z.detach(), y, ignore_index)
        grad = grad.masked_fill(~kept, 0.0)
        if torch.is_grad_enabled():  # a graph of the gradient is wanted
            z = z.masked_fill(~kept.unsqueeze(1), 0.0)
            p = entmax(z, closed or alpha).to(grad.dtype) * grad.unsqueeze(1)
            grad_z = _minus_target(p, safe_y, grad)
            alpha_slope = _entropy_alpha_derivative(entmax(z, alpha), alpha).to(grad.dtype)
        elif ctx.compiled:
            grad_z = _compiled_gradient(z, alpha, saved, grad)
        else:
            grad_z = _minus_target(_scatter_support(z, grad, saved), safe_y, grad)
        if label_smoothing:
            weights = smoothing_weights(z.detach(), ignore_index, grad.dtype)
            smooth = _minus_target(weights * grad.unsqueeze(1), safe_y, grad)
            grad_z = grad_z - label_smoothing * smooth
        grad_alpha = (grad * alpha_slope).double().unsqueeze(1)
        if alpha.shape[0] == 1:
            grad_alpha = grad_alpha.sum(0, keepdim=True)
        return grad_z.to(z.dtype), None, grad_alpha, None, None, None


def _minus_target(p: Tensor, y: Tensor, grad: Tensor) -> Tensor:
    """p - grad e_y for probabilities that are already scaled by grad."""
    return p.scatter_add(1, y.unsqueeze(1), -grad.unsqueeze(1))


def _solve_compiled(z: Tensor, y: Tensor, alpha: Tensor) -> _Solved:
    kernels = compiled(z)
    assert kernels is not None
    alpha = alpha.clamp(min=1 + NEAR_ONE).contiguous()
    solved = kernels.LossBuffers.empty(y, min(z.shape[1], _KEPT_ENTRIES))
    kernels.entmax_loss_forward(z, alpha, solved)
    loss = solved.loss.float()
    slope = torch.zeros_like(loss)
    statistics = (solved.support.long(), solved.target_prob, solved.correct)
    return _Solved(loss, *statistics, slope, list(solved))


def _compiled_gradient(z: Tensor, alpha: Tensor, saved: List[Tensor], grad: Tensor) -> Tensor:
    kernels = compiled(z)
    assert kernels is not None
    alpha = alpha.clamp(min=1 + NEAR_ONE).contiguous()
    gradient: Tensor = kernels.entmax_loss_backward(
        z, alpha, kernels.LossBuffers(*saved), grad.float().contiguous()
    )
    return gradient


def _solve_torch(
    z: Tensor, y: Tensor, alpha: Tensor, closed: float, ignore_index: int, alpha_slope: bool
) -> _Solved:
    dtype = torch.promote_types(z.dtype, torch.float32)
    kept, safe_y = counted_rows(z, y, ignore_index)
    loss = torch.zeros(y.shape, dtype=dtype, device=z.device)
    support_size = torch.zeros_like(y)
    target_probs, slopes = torch.zeros_like(loss), torch.zeros_like(loss)
    z_y = z.gather(1, safe_y.unsqueeze(1)).to(dtype)
    entries: List[Tensor] = []
    for rows, solved in solve_rows(z, alpha, closed):
        p = solved.p.masked_fill_(~kept[rows].unsqueeze(1), 0.0)
        a = alpha if alpha.shape[0] == 1 else alpha[rows]
        loss[rows] = _chunk_loss(z[rows], z_y[rows], solved, a, closed).to(dtype)
        support_size[rows] = (p > 0).sum(1)
        target_probs[rows] = _prob_of(safe_y[rows], solved).to(dtype)
        if alpha_slope:
            slopes[rows] = _entropy_alpha_derivative(p, a).to(dtype)
        entries.extend(_support_entries(rows.start, solved, dtype))
    correct = kept & (z_y.squeeze(1) >= z.amax(1))
    loss.masked_fill_(~kept, 0.0)
    target_probs.masked_fill_(~kept, 0.0)
    return _Solved(loss, support_size, target_probs, correct, slopes, entries)


def _chunk_loss(z: Tensor, z_y: Tensor, solved: Rows, alpha: Tensor, closed: float) -> Tensor:
    """p.(z - max) + H(p) + max - z_y of some rows, (N,)."""
    p, columns, largest = solved
    candidates = z if columns is None else z.gather(1, columns)
    shifted = candidates.to(p.dtype) - largest.to(p.dtype)
    dot = torch.where(p > 0, p * shifted, torch.zeros_like(p)).sum(1)
    gap = (largest.to(p.dtype) - z_y.to(p.dtype)).squeeze(1)
    return (dot + _entropy(p, alpha, closed) + gap).clamp(min=0)  # rounding may cross 0


def _prob_of(y: Tensor, solved: Rows) -> Tensor:
    """The probability of class y in each row, (N,)."""
    if solved.columns is None:
        return solved.p.gather(1, y.unsqueeze(1)).squeeze(1)
    at_target = solved.columns == y.unsqueeze(1)
    return solved.p.masked_fill(~at_target, 0.0).sum(1)


def _support_entries(
    first_row: int, solved: Rows, dtype: torch.dtype
) -> Tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of every nonzero probability (a NaN counts)."""
    row, position = (solved.p != 0).nonzero(as_tuple=True)
    value = solved.p[row, position].to(dtype)
    column = position if solved.columns is None else solved.columns[row, position]
    return row + first_row, column, value


def _scatter_support(z: Tensor, grad: Tensor, entries: Any) -> Tensor:
    """p * grad as a dense (N, V) matrix, from its nonzero entries."""
    out = torch.zeros(z.shape, dtype=grad.dtype, device=z.device)
    for row, column, value in zip(entries[::3], entries[1::3], entries[2::3]):
        out[row, column] = value * grad[row]
    return out
