"""Rows of scores to probabilities and losses, and back, without a look from the host."""

import math
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from ..contract import NEAR_ONE, SolvedRows, has_storage
from ..dense_layer import DenseLayer
from ..formulas import Gap, entropy, jacobian_product, slopes
from .solver import newton_step, solve_threshold, terms

_CHUNK_ELEMENTS = 1 << 24  # 64 MB for each temporary
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def takes(z: Tensor) -> bool:
    """Scores in float32, bfloat16 or float16 that are not in a CPU's memory; alpha <= 2."""
    return z.dtype in _TYPES and (z.device.type != "cpu" or not has_storage(z))


def _gap(alpha: Tensor) -> Gap:
    """alpha - 1 as a number where all rows share a constant, which the host knows."""
    if alpha.device.type == "cpu" and alpha.numel() == 1 and has_storage(alpha):
        return max(float(alpha) - 1, NEAR_ONE)
    return (alpha - 1).to(torch.float32).clamp(min=NEAR_ONE)


def _chunks(z: Tensor, alpha: Tensor) -> List[Tuple[slice, Gap]]:
    """Slices of the rows, each with its gap; one only where memory does not count."""
    n_rows, gap = z.shape[0], _gap(alpha)
    step = max(1, _CHUNK_ELEMENTS // max(1, z.shape[1])) if has_storage(z) else max(1, n_rows)
    slices = [slice(i, min(i + step, n_rows)) for i in range(0, max(1, n_rows), step)]
    if isinstance(gap, Tensor) and gap.shape[0] > 1:
        return [(rows, gap[rows]) for rows in slices]
    return [(rows, gap) for rows in slices]


def _joined(parts: List[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _probs(z: Tensor, gap: Gap, closed: Optional[float]) -> Tuple[Tensor, ...]:
    """p (N, V), the shifted scores, the row's maximum and theta, (N, 1); all float32."""
    largest = z.amax(1, keepdim=True).to(torch.float32)
    s, theta, low = solve_threshold(z, largest, gap, closed)
    return _normalised(s, theta, low, largest, gap, closed), s, largest, theta


def _normalised(
    s: Tensor, theta: Tensor, low: Tensor, largest: Tensor, gap: Gap, closed: Optional[float]
) -> Tensor:
    """The probabilities with this threshold, also of dead and broken rows."""
    p, _ = terms(s, theta, low, gap, closed)
    if closed is None:
        p = p / p.sum(1, keepdim=True)
    dead = largest == -math.inf
    p = torch.where(dead, torch.zeros_like(p), p)
    return p.masked_fill(~(dead | largest.isfinite()), math.nan)


def entmax(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.entmax`."""
    parts = [_probs(z[rows], gap, closed)[0].to(z.dtype) for rows, gap in _chunks(z, alpha)]
    return _joined(parts)


def log_entmax(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.log_entmax`."""
    parts = [_probs(z[rows], gap, closed)[0].log().to(z.dtype) for rows, gap in _chunks(z, alpha)]
    return _joined(parts)


def next_token_layer(
    weight: Tensor, bias: Optional[Tensor], alpha: float, temperature: float
) -> DenseLayer:
    """As :meth:`.RowKernels.next_token_layer`."""
    return DenseLayer(log_entmax, weight, bias, alpha, temperature)


def entmax_backward(probs: Tensor, grad: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.entmax_backward`; differentiable any number of times."""
    s = slopes(probs.to(torch.float32), _gap(alpha), closed)
    return jacobian_product(s, grad.to(torch.float32)).to(probs.dtype)


def solve_loss(
    z: Tensor, target: Tensor, alpha: Tensor, closed: Optional[float], capacity: int
) -> SolvedRows:
    """As :meth:`.RowKernels.solve_loss`; nothing is kept, for to find it would wait."""
    chunks = _chunks(z, alpha)
    parts = [_solve_chunk(z[rows], target[rows], gap, closed) for rows, gap in chunks]
    loss, support_size, target_probs, correct, tau, largest = map(_joined, map(list, zip(*parts)))
    return SolvedRows(
        target=target,
        n_kept=-(support_size > 0).to(torch.int32),
        columns=target.new_empty((len(target), 0), dtype=torch.int32),
        values=loss.new_empty((len(target), 0)),
        loss=loss,
        support_size=support_size,
        target_probs=target_probs,
        correct=correct,
        tau=tau,
        largest=largest,
    )


def _solve_chunk(
    z: Tensor, target: Tensor, gap: Gap, closed: Optional[float]
) -> Tuple[Tensor, ...]:
    """Loss, support size, p of the target, correct, theta and maximum of some rows, (N,) each."""
    y = target.clamp(min=0).unsqueeze(1)
    p, s, largest, theta = _probs(z, gap, closed)
    outside = (target < 0).unsqueeze(1) | (largest == -math.inf)
    p = p.masked_fill(outside, 0.0)
    s_y = z.gather(1, y).to(torch.float32) - largest
    dot = torch.where(p > 0, p * s, p).sum(1)  # p is 0 or NaN there
    loss = (dot + entropy(p, gap, closed) - s_y.squeeze(1)).clamp(min=0)  # rounding may cross 0
    columns = (
        loss.unsqueeze(1).masked_fill(outside, 0.0),
        (p > 0).sum(1, keepdim=True),
        p.gather(1, y),
        (s_y >= 0) & ~outside,
        theta.masked_fill(~largest.isfinite(), math.nan).masked_fill(outside, math.inf),
        largest,
    )
    return tuple(column.squeeze(1) for column in columns)


def loss_backward(
    z: Tensor, alpha: Tensor, closed: Optional[float], solved: SolvedRows, grad: Tensor
) -> Tensor:
    """As :meth:`.RowKernels.loss_backward`."""
    parts = []
    for rows, gap in _chunks(z, alpha):
        largest, theta = solved.largest[rows].unsqueeze(1), solved.tau[rows].unsqueeze(1)
        outside = theta == math.inf
        s = z[rows].to(torch.float32) - largest
        p = _normalised(s, theta, newton_step(s, theta, gap, closed), largest, gap, closed)
        weight = grad[rows].to(torch.float32).unsqueeze(1).masked_fill(outside, 0.0)
        y = solved.target[rows].clamp(min=0).unsqueeze(1)
        dense = p.masked_fill(outside, 0.0) * weight
        parts.append(dense.scatter_add(1, y, -weight).to(z.dtype))
    return _joined(parts)
