"""The Fenchel-Young losses of alpha-entmax: cross-entropy at alpha = 1, a margin above."""

import math
from typing import Any, NamedTuple, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_entmax.kernels import device, operators
from fairseq_entmax.kernels.choose import choose
from fairseq_entmax.kernels.contract import SolvedRows, has_storage
from fairseq_entmax.kernels.plain.rows import row_chunks

from .alpha_gradients import entropy_by_alpha
from .checks import (
    Alpha,
    check_alpha,
    check_dim,
    check_label_smoothing,
    check_reduction,
    check_scores,
    check_smoothing_probs,
    check_target,
)
from .mapping import entmax_in_graph, entmax_rows, flatten_rows
from .smoothing import smoothing_term, widened

_KEPT_ENTRIES = 512  # of a row's support; what is longer is written again from its threshold


class LossRows(NamedTuple):
    """What one pass over the scores tells, one entry per row; ignored rows hold zeros."""

    loss: Tensor
    support_size: Tensor
    target_probs: Tensor
    correct: Tensor  # the target's score is the largest


def entmax_loss(
    scores: Tensor,
    target: Tensor,
    alpha: Alpha = 1.5,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    smoothing_probs: Optional[Tensor] = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Fenchel-Young loss of alpha-entmax; its gradient is the sparse vector p - e_y.

    .. math::
        L(z; y) = p^\top z + H_\alpha(p) - z_y, \quad p = \mathrm{entmax}_\alpha(z)

    with H the Tsallis entropy; L is 0 as soon as z_y exceeds every other score by
    1 / (alpha - 1). With label smoothing eps: L + eps (z_y - q.z), q uniform or given.

    Args:
        scores: z, shape (..., V), any floating type. ``-inf`` masks a class.
        target: y, class indices, shape (...), int64.
        alpha: a number >= 1 (1 is exactly F.cross_entropy), or a tensor that broadcasts to
            (..., 1) and receives a gradient.
        ignore_index: rows with this target count nothing. May be a class: the padding symbol.
        label_smoothing: eps in [0, 1).
        smoothing_probs: q, shape (V,): the distribution that label smoothing mixes in, for example
            the frequencies of the classes (counts are normalised); None is uniform. Classes that
            are masked or ``ignore_index`` have no share.
        reduction: "none", "sum", or "mean" over the rows that count (0 if there are none).

    Returns:
        the loss, a scalar or shape (...), in the dtype of ``scores``.

    Raises:
        ValueError: alpha below 1, a target out of range, wrong shapes or types.

    Source:
        Peters, Niculae, Martins (ACL 2019), Definition 2 and eq. 11; Peters and Martins
        (SPNLP 2021) for label smoothing.

    Example:
        >>> import torch
        >>> entmax_loss(torch.tensor([[4.0, 1.0, 0.0]]), torch.tensor([0]), alpha=1.5)
        tensor(0.)
    """
    check_reduction(reduction)
    rows = entmax_loss_rows(
        scores,
        target,
        alpha,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        smoothing_probs=smoothing_probs,
    )
    return reduced(rows.loss, target != ignore_index, reduction).to(scores.dtype)


def reduced(loss: Tensor, counted: Tensor, reduction: str) -> Tensor:
    """The losses of all rows as they are, their sum, or their mean over the rows that count."""
    if reduction == "none":
        return loss
    return loss.sum() / counted.sum().clamp(min=1) if reduction == "mean" else loss.sum()


def entmax_loss_rows(
    scores: Tensor,
    target: Tensor,
    alpha: Alpha = 1.5,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    smoothing_probs: Optional[Tensor] = None,
) -> LossRows:
    """``entmax_loss`` unreduced, with the statistics that the same pass gives.

    Returns:
        LossRows of shape (...): the loss in float32 (a sum of 16-bit losses would overflow) or
        float64, the number of nonzero probabilities, the target's probability, and whether the
        target has the largest score.
    """
    check_scores(scores)
    check_target(scores, target, ignore_index)
    largest = check_alpha(alpha, scores, check_dim(scores, -1))
    check_label_smoothing(label_smoothing)
    check_smoothing_probs(smoothing_probs, scores.shape[-1])
    if not label_smoothing or scores.numel() == 0:
        return unsmoothed_loss_rows(scores, target, alpha, ignore_index, largest)
    scores = widened(scores)  # so that loss and term are added before gradients are rounded
    rows = unsmoothed_loss_rows(scores, target, alpha, ignore_index, largest)
    term = smoothing_term(scores, target, smoothing_probs, ignore_index)
    return rows._replace(loss=rows.loss + label_smoothing * term)


def unsmoothed_loss_rows(
    scores: Tensor, target: Tensor, alpha: Alpha, ignore_index: int, largest: float
) -> LossRows:
    """``entmax_loss_rows`` of arguments that are known to be right; alpha <= ``largest``."""
    if scores.numel() == 0:
        nothing = widened(scores).sum(-1)
        return LossRows(nothing, nothing.long(), nothing.detach(), nothing > 0)
    y = target.reshape(-1)
    if operators.in_graph():  # checked by the operator, which knows one index to ignore: -1
        y = y.masked_fill((y < 0) & (y != ignore_index), scores.shape[-1])
    y = y.masked_fill(y == ignore_index, -1)
    if not isinstance(alpha, Tensor) and alpha == 1:
        rows = _cross_entropy_rows(scores.reshape(-1, scores.shape[-1]), y)
    else:
        z, row_alpha, closed = flatten_rows(scores, alpha, scores.dim() - 1, largest)
        rows = _solved_rows(z, y, row_alpha, closed)
    return LossRows(*(column.view(target.shape) for column in rows))


def _cross_entropy_rows(z: Tensor, y: Tensor) -> LossRows:
    z = widened(z)
    kept = (y >= 0) & (z.detach().amax(1) != -math.inf)
    safe_y = y.masked_fill(~kept, 0)
    z = z.masked_fill(~kept.unsqueeze(1), 0.0)
    loss = F.cross_entropy(z, safe_y, reduction="none")
    with torch.no_grad():
        z_y = z.gather(1, safe_y.unsqueeze(1)).squeeze(1)
        support_size = (z > -math.inf).sum(1)
        target_probs = (z_y - z.logsumexp(1)).exp()
        correct = z_y >= z.amax(1)
    columns = (loss, support_size, target_probs, correct)
    return LossRows(*(column.masked_fill(~kept, 0) for column in columns))


def _solved_rows(z: Tensor, y: Tensor, alpha: Tensor, closed: Optional[float]) -> LossRows:
    capacity = min(z.shape[1], _KEPT_ENTRIES)
    if not operators.in_graph():
        return LossRows(*_EntmaxLoss.apply(z, y, alpha, closed, capacity))
    solved = SolvedRows(y, *_solve_in_graph(z, y, alpha, closed, capacity))
    return LossRows(solved.loss, solved.support_size, solved.target_probs, solved.correct)


def _entropy_slopes(z: Tensor, alpha: Tensor) -> Tensor:
    """dL/dalpha of each row, (N,), in chunks that bound the memory."""
    slope = z.new_empty(len(z), dtype=torch.promote_types(z.dtype, torch.float32))
    for rows, a in row_chunks(z.shape[0], z.shape[1], alpha):
        wide = widened(z[rows])
        p = choose(wide).entmax(wide, a, None)
        slope[rows] = entropy_by_alpha(p, a).to(slope.dtype)
    return slope


def _weighted_gradient(p: Tensor, target: Tensor, grad: Tensor) -> Tensor:
    """grad (p - e_y) of operations that have a graph of their own."""
    weighted = p.to(grad.dtype) * grad.unsqueeze(1)
    y = target.clamp(min=0).unsqueeze(1)
    return weighted.scatter_add(1, y, -grad.unsqueeze(1)).to(p.dtype)


def _grad_alpha(grad: Tensor, slope: Tensor, outside: Tensor, alpha: Tensor) -> Tensor:
    """The gradient of alpha, (N, 1) or (1, 1), from those of the losses."""
    grad_alpha = (grad * slope.masked_fill(outside, 0.0)).to(alpha.dtype).unsqueeze(1)
    return grad_alpha.sum(0, keepdim=True) if alpha.shape[0] == 1 else grad_alpha


class _EntmaxLoss(torch.autograd.Function):
    """Keeps p on its support only; the dense gradient p - e_y is written once, in backward."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, y: Tensor, alpha: Tensor, closed: Optional[float], capacity: int
    ) -> Tuple[Tensor, ...]:
        solved = choose(z).solve_loss(z, y, alpha, closed, capacity)
        loss = solved.loss.to(torch.promote_types(z.dtype, torch.float32))
        slope = _entropy_slopes(z, alpha) if ctx.needs_input_grad[2] else None
        ctx.save_for_backward(z, alpha, slope, *solved)
        ctx.closed = closed
        statistics = (solved.support_size.long(), solved.target_probs, solved.correct)
        ctx.mark_non_differentiable(*statistics)
        return (loss, *statistics)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Tuple[Optional[Tensor], ...]:
        z, alpha, slope, *columns = ctx.saved_tensors
        solved = SolvedRows(*columns)
        outside = solved.tau == math.inf
        grad = grad.masked_fill(outside, 0.0)
        kernels, by_alpha = choose(z), ctx.needs_input_grad[2]
        # kernels have no graph, and few of them take a batch of gradients
        if not torch.is_grad_enabled() and (has_storage(grad) or kernels is device):
            grad_z = kernels.loss_backward(z, alpha, ctx.closed, solved, grad)
        else:
            p = entmax_rows(z.masked_fill(outside.unsqueeze(1), 0.0), alpha, ctx.closed)
            grad_z = _weighted_gradient(p, solved.target, grad)
            slope = entropy_by_alpha(p, alpha).to(grad.dtype) if by_alpha else None
        grad_alpha = _grad_alpha(grad, slope, outside, alpha) if by_alpha else None
        return grad_z, None, grad_alpha, None, None


def _save_in_graph(ctx: Any, inputs: Tuple[Any, ...], output: Sequence[Tensor]) -> None:
    z, y, alpha, ctx.closed, _ = inputs
    ctx.save_for_backward(z, alpha, y, *output)


def _backward_in_graph(ctx: Any, *grads: Optional[Tensor]) -> Tuple[Optional[Tensor], ...]:
    z, alpha, *columns = ctx.saved_tensors
    solved = SolvedRows(*columns)
    grad = grads[SolvedRows._fields.index("loss") - 1]
    if grad is None:
        return None, None, None, None, None
    outside, by_alpha = solved.tau == math.inf, ctx.needs_input_grad[2]
    grad = grad.masked_fill(outside, 0.0)
    if not torch.is_grad_enabled() and not by_alpha:
        state = (solved.target, list(solved[1:]), alpha, ctx.closed)
        return operators.loss_backward(z, grad, *state), None, None, None, None
    p = entmax_in_graph(z.masked_fill(outside.unsqueeze(1), 0.0), alpha, ctx.closed)
    grad_z, grad_alpha = _weighted_gradient(p, solved.target, grad), None
    if by_alpha:
        grad_alpha = _grad_alpha(grad, entropy_by_alpha(p, alpha).to(grad.dtype), outside, alpha)
    return grad_z, None, grad_alpha, None, None


if operators.AVAILABLE:
    _solve_in_graph = operators.differentiable(
        operators.solve_loss, _save_in_graph, _backward_in_graph
    )
