"""The Fenchel-Young losses of alpha-entmax: cross-entropy at alpha = 1, a margin above."""

import math
from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

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
from .fenchel_young import EntmaxLoss, counted_rows, smoothing_weights
from .mapping import flatten_rows
from .smoothing import smoothing_term


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
    if reduction == "none":
        return rows.loss.to(scores.dtype)
    total = rows.loss.sum()
    if reduction == "mean":
        total = total / (target != ignore_index).sum().clamp(min=1)
    return total.to(scores.dtype)


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
    check_alpha(alpha, scores, check_dim(scores, -1))
    check_label_smoothing(label_smoothing)
    check_smoothing_probs(smoothing_probs, scores.shape[-1])
    if label_smoothing and smoothing_probs is not None:
        rows = entmax_loss_rows(scores, target, alpha, ignore_index=ignore_index)
        term = smoothing_term(scores, target, smoothing_probs, ignore_index)
        return rows._replace(loss=rows.loss + label_smoothing * term)
    if scores.numel() == 0:
        nothing = scores.to(torch.promote_types(scores.dtype, torch.float32)).sum(-1)
        return LossRows(nothing, nothing.long(), nothing.detach(), nothing > 0)
    if not isinstance(alpha, Tensor) and alpha == 1:
        return _cross_entropy_rows(scores, target, ignore_index, label_smoothing)
    z, row_alpha, closed = flatten_rows(scores, alpha, scores.dim() - 1)
    columns = EntmaxLoss.apply(
        z, target.reshape(-1), row_alpha, closed, ignore_index, label_smoothing
    )
    return LossRows(*(column.view(target.shape) for column in columns))


def _cross_entropy_rows(
    scores: Tensor, target: Tensor, ignore_index: int, label_smoothing: float
) -> LossRows:
    z = scores.reshape(-1, scores.shape[-1])
    if z.dtype not in (torch.float32, torch.float64):
        z = z.float()
    y = target.reshape(-1)
    kept, safe_y = counted_rows(z.detach(), y, ignore_index)
    z = z.masked_fill(~kept.unsqueeze(1), 0.0)
    loss = F.cross_entropy(z, safe_y, reduction="none")
    z_y = z.gather(1, safe_y.unsqueeze(1)).squeeze(1)
    if label_smoothing:
        weights = smoothing_weights(z.detach(), ignore_index, z.dtype)
        mean = (z.masked_fill(weights == 0, 0.0) * weights).sum(1)
        loss = loss + label_smoothing * (z_y - mean)
    with torch.no_grad():
        support_size = (z > -math.inf).sum(1)
        target_probs = (z_y - z.logsumexp(1)).exp()
        correct = z_y >= z.amax(1)
    columns = (loss, support_size, target_probs, correct)
    return LossRows(*(c.masked_fill(~kept, 0).view(target.shape) for c in columns))
