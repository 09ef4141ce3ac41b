"""Formulas of one distribution that the back ends in torch share; each row's gap is alpha - 1."""

from typing import Optional, Union

import torch
from torch import Tensor

Gap = Union[float, Tensor]  # one number, or (N, 1)

_LARGEST_SLOPE = 1e100  # p^(2 - alpha) is unbounded at the support's edge for alpha > 2


def entropy(p: Tensor, gap: Gap, closed: Optional[float]) -> Tensor:
    """H_alpha of each row, (N,); expm1 keeps it exact near alpha = 1."""
    if closed == 1.5:
        return (1 - (p * p.sqrt()).sum(1)) / 0.75
    if closed == 2.0:
        return (1 - p.square().sum(1)) / 2
    log_p = torch.where(p > 0, p, torch.ones_like(p)).log()
    summed = (p * torch.expm1(gap * log_p)).sum(1, keepdim=True)
    return (-summed / (gap * (1 + gap))).squeeze(1)


def slopes(p: Tensor, gap: Gap, closed: Optional[float]) -> Tensor:
    """s = p^(2 - alpha) on the support, else 0; differentiable also where p = 0."""
    support = p > 0
    if closed == 2.0:
        return support.to(p.dtype)
    safe = torch.where(support, p, torch.ones_like(p))
    largest = min(_LARGEST_SLOPE, torch.finfo(p.dtype).max)
    s = safe.sqrt() if closed == 1.5 else safe.pow(1 - gap).clamp(max=largest)
    return torch.where(support, s, torch.zeros_like(s))


def jacobian_product(s: Tensor, grad: Tensor) -> Tensor:
    """(diag(s) - s s^T / sum s) grad, Proposition 2; differentiable any number of times."""
    # sum s >= sum p = 1 on every row but the masked ones, where s = 0
    mean = (s * grad).sum(1, keepdim=True) / s.sum(1, keepdim=True).clamp(min=0.5)
    return s * (grad - mean)
