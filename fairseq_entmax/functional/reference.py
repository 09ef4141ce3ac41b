"""The paper line by line, in float64: slow, obviously right, the oracle of every test.

Peters, Niculae, Martins: "Sparse Sequence-to-Sequence Models", ACL 2019, arXiv:1905.05702.
Scores ``z`` stand in the last dimension. Nothing here is differentiable or fast.
"""

import math
from typing import Optional

import torch
from torch import Tensor

_BISECTIONS = 200  # float64 runs out of midpoints long before


def tsallis_entropy(probs: Tensor, alpha: float) -> Tensor:
    """Eq. 4: H_alpha(p) = sum_j (p_j - p_j^alpha) / (alpha (alpha - 1)); Shannon at alpha = 1."""
    p = probs.double()
    if alpha == 1:
        return -torch.xlogy(p, p).sum(-1)
    return (p - p**alpha).sum(-1) / (alpha * (alpha - 1))


def entmax(scores: Tensor, alpha: float = 1.5) -> Tensor:
    """Eq. 5 and Algorithm 1 (bisection): argmax_p p.z + H_alpha(p).

    p = [(alpha - 1) z - tau]_+^(1 / (alpha - 1)) with tau such that sum p = 1.
    A row of -inf gives zeros. alpha = 1 is softmax.
    """
    z = scores.double()
    largest = z.max(-1, keepdim=True).values
    dead = largest == -math.inf
    z = z - torch.where(dead, torch.zeros_like(largest), largest)  # entmax(z + c) = entmax(z)
    if alpha == 1:
        return torch.where(dead, torch.zeros_like(z), torch.softmax(z, -1))
    z = (alpha - 1) * z

    def p(tau: Tensor) -> Tensor:
        return (z - tau).clamp(min=0) ** (1 / (alpha - 1))

    tau_min = z.max(-1, keepdim=True).values - 1
    # the largest entry alone has at most 1 / V ... 1 of the mass
    tau_max = tau_min + 1 - z.shape[-1] ** (1.0 - alpha)
    for _ in range(_BISECTIONS):
        tau = (tau_min + tau_max) / 2
        if bool(((tau == tau_min) | (tau == tau_max)).all()):  # no number is left between them
            break
        too_much = p(tau).sum(-1, keepdim=True) >= 1
        tau_min = torch.where(too_much, tau, tau_min)
        tau_max = torch.where(too_much, tau_max, tau)
    probs = p(tau_min)
    return torch.where(dead, torch.zeros_like(z), probs / probs.sum(-1, keepdim=True))


def sparsemax(scores: Tensor) -> Tensor:
    """Martins and Astudillo (2016), Algorithm 1: exact, by sorting."""
    z = scores.double().sort(-1, descending=True).values
    rank = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype)
    cumulative = z.cumsum(-1)
    support_size = (1 + rank * z > cumulative).sum(-1, keepdim=True)
    tau = (cumulative.gather(-1, support_size - 1) - 1) / support_size
    return (scores.double() - tau).clamp(min=0)


def entmax15(scores: Tensor) -> Tensor:
    """Algorithm 2: exact 1.5-entmax, by sorting."""
    z = scores.double() / 2
    z = z - z.max(-1, keepdim=True).values
    sorted_z = z.sort(-1, descending=True).values
    rho = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype)
    mean = sorted_z.cumsum(-1) / rho
    variance_sum = (sorted_z**2).cumsum(-1) - rho * mean**2
    tau = mean - ((1 - variance_sum) / rho).clamp(min=0).sqrt()
    support_size = (tau <= sorted_z).sum(-1, keepdim=True)
    return (z - tau.gather(-1, support_size - 1)).clamp(min=0) ** 2


def entmax_jacobian(probs: Tensor, alpha: float) -> Tensor:
    """Proposition 2: diag(s) - s s^T / sum(s) with s_j = p_j^(2 - alpha) on the support, else 0."""
    p = probs.double()
    s = torch.where(p > 0, p.clamp(min=1e-300) ** (2 - alpha), torch.zeros_like(p))
    outer = s.unsqueeze(-1) * s.unsqueeze(-2)
    return torch.diag_embed(s) - outer / s.sum(-1)[..., None, None]


def entmax_loss(
    scores: Tensor,
    target: Tensor,
    alpha: float = 1.5,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    smoothed: Optional[Tensor] = None,
    smoothing_probs: Optional[Tensor] = None,
) -> Tensor:
    """Definition 2, unreduced: L(z; e_y) = p.z + H_alpha(p) - z_y with p = entmax(z).

    With smoothing (Peters and Martins 2021): L + eps (z_y - mean z), the mean over the classes
    marked in the boolean ``smoothed`` (V,); by default every class but ``ignore_index``. With
    ``smoothing_probs`` (V,) that mean is weighted by them: unigram label smoothing.
    """
    z = scores.double()
    p = entmax(z, alpha)
    kept = target != ignore_index
    y = torch.where(kept, target, torch.zeros_like(target))
    z_y = z.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    dot = torch.where(p > 0, p * z, torch.zeros_like(p)).sum(-1)
    loss = dot + tsallis_entropy(p, alpha) - z_y
    if label_smoothing:
        if smoothed is None:
            smoothed = torch.arange(z.shape[-1]) != ignore_index
        q = torch.ones_like(smoothed) if smoothing_probs is None else smoothing_probs
        q = q.double()[smoothed] / q.double()[smoothed].sum()
        loss = loss + label_smoothing * (z_y - (q * z[..., smoothed]).sum(-1))
    return torch.where(kept, loss, torch.zeros_like(loss))


def epsilon_perplexity(probs: Tensor, target: Tensor, epsilon: float) -> Tensor:
    """Martins, Marinho, Martins (EMNLP 2020): perplexity of (p + eps) / sum_j (p_j + eps)."""
    smoothed = probs.double() + epsilon
    smoothed = smoothed / smoothed.sum(-1, keepdim=True)
    return (-smoothed.gather(-1, target.unsqueeze(-1)).log().mean()).exp()


def js_divergence(probs: Tensor, target: Tensor) -> Tensor:
    """KL(p || m) / 2 + KL(e_y || m) / 2 with m = (p + e_y) / 2, in nats."""
    p = probs.double()
    one_hot = torch.nn.functional.one_hot(target, p.shape[-1]).double()
    m = (p + one_hot) / 2
    terms = [torch.xlogy(q, q / torch.where(m > 0, m, torch.ones_like(m))) for q in (p, one_hot)]
    return (terms[0] + terms[1]).sum(-1) / 2


def sparsemax_score(probs: Tensor, target: Tensor) -> Tensor:
    """``1 - |p - e_y|^2 / 2``, which is 1 minus the sparsemax loss of the scores p."""
    p = probs.double()
    one_hot = torch.nn.functional.one_hot(target, p.shape[-1]).double()
    return 1 - (p - one_hot).square().sum(-1) / 2
