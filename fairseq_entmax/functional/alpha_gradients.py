"""How probabilities and losses change with alpha: Correia, Niculae, Martins (2019), section 3.3.

Both are written with phi_j = (exp(t_j) - 1 - t_j) / gap^2, t_j = -gap log p_j and gap = alpha - 1,
so that nothing cancels, neither near alpha = 1 nor in float32.
"""

import math

import torch
from torch import Tensor

from fairseq_entmax.kernels.contract import NEAR_ONE

_LARGEST_POWER = 30.0  # where exp(t) may overflow, it is taken relative to the largest
_SMALL = 0.2  # where exp(t) - 1 - t cancels, it is a series


def _wide(p: Tensor) -> Tensor:
    """float64 on CPUs; accelerators have float32 alone that is fast."""
    return p.double() if p.device.type == "cpu" else p.to(torch.float32)


def _curvature(t: Tensor, log_p: Tensor, gap: Tensor, shift: Tensor) -> Tensor:
    """phi exp(-shift), all (N, V) but gap and shift, (N, 1)."""
    large = ((t - shift).exp() - (-shift).exp() * (1 + t)) / gap.square()
    series = torch.full_like(t, 1 / math.factorial(9))
    for i in range(8, 1, -1):
        series = series * t.clamp(max=_SMALL) + 1 / math.factorial(i)
    return torch.where(t < _SMALL, log_p.square() * series * (-shift).exp(), large)


def _log_on_support(p: Tensor) -> Tensor:
    return torch.where(p > 0, p, torch.ones_like(p)).log()


def probs_by_alpha(probs: Tensor, alpha: Tensor) -> Tensor:
    """dp/dalpha (N, V) = p (Phi (1 + t) - phi (1 + T)) / (1 + M), in float32 or float64.

    Phi, T and M are the means under p of phi, t and exp(t) - 1.
    """
    p = _wide(probs)
    p = p / p.sum(1, keepdim=True).clamp(min=0.5)
    gap = (alpha - 1).clamp(min=NEAR_ONE).to(p.dtype)
    log_p = _log_on_support(p)
    t = -gap * log_p
    shift = (t.detach().amax(1, keepdim=True) - _LARGEST_POWER).clamp(min=0)
    phi = _curvature(t, log_p, gap, shift)
    means = (p * torch.stack([phi, t, (t - shift).exp()])).sum(2, keepdim=True)
    mean_phi, mean_t, mean_power = means.unbind()
    return p * (mean_phi * (1 + t) - phi * (1 + mean_t)) / mean_power.clamp(min=1e-30)


def entropy_by_alpha(probs: Tensor, alpha: Tensor) -> Tensor:
    """dH_alpha(p)/dalpha at fixed p, (N,): by the envelope theorem, also the loss's.

    -sum_j p_j (exp(-t_j) phi_j / alpha + (1 - exp(-t_j)) / (gap alpha^2))
    """
    p = _wide(probs)
    gap = (alpha - 1).clamp(min=NEAR_ONE).to(p.dtype)
    log_p = _log_on_support(p)
    t = -gap * log_p
    by_power = _curvature(t, log_p, gap, t) / (1 + gap)
    by_scale = -torch.expm1(-t) / (gap * (1 + gap).square())
    return -(p * (by_power + by_scale)).sum(1)
