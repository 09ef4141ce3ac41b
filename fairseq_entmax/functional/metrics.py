"""Figures of merit that are finite where a model gives the right word probability zero.

Perplexity is infinite as soon as one reference has p = 0, so it cannot compare sparse or truncated
distributions. These three can; two of them need no more than the probabilities of the references.
"""

import math
from typing import Optional

import torch
from torch import Tensor
from torch.nn.functional import linear

from .checks import check_scores
from .mapping import entmax
from .smoothing import widened

_CHUNK_SCORES = 1 << 22


def epsilon_nll(target_probs: Tensor, n_classes: int, epsilon: float) -> Tensor:
    r"""-log p_y of the smoothed probabilities, in nats; their mean's exponential is
    epsilon-perplexity.

    .. math::
        \ell = -\log \frac{p_y + \epsilon}{1 + \epsilon V}

    Args:
        target_probs: p_y, any shape.
        n_classes: V.
        epsilon: >= 0; at 0 a reference of p = 0 costs infinity.

    Returns:
        The shape of ``target_probs``, in float32 or its own wider type.

    Raises:
        ValueError: epsilon is negative or no number.

    Source:
        Martins, Marinho, Martins: "Sparse Text Generation" (EMNLP 2020), section 4.
    """
    check_epsilon(epsilon)
    smoothed = widened(target_probs) + epsilon
    return math.log1p(epsilon * n_classes) - smoothed.log()


def epsilon_perplexity(target_probs: Tensor, n_classes: int, epsilon: float = 1e-6) -> Tensor:
    """exp of the mean of :func:`epsilon_nll`: perplexity, with epsilon added to every probability.

    Args:
        target_probs: p_y of each reference, any shape.
        n_classes: V.
        epsilon: >= 0; 0 is perplexity itself.

    Returns:
        A scalar, at least 1 up to rounding.

    Raises:
        ValueError: epsilon is negative or no number.

    Source:
        Martins, Marinho, Martins (EMNLP 2020), section 4.

    Example:
        >>> epsilon_perplexity(torch.tensor([0.5, 0.5, 0.0]), n_classes=4, epsilon=0.01)
        tensor(7.5623)
    """
    return epsilon_nll(target_probs, n_classes, epsilon).mean().exp()


def js_divergence(target_probs: Tensor) -> Tensor:
    r"""Jensen-Shannon divergence of p and the one-hot e_y, in nats: 0 to log 2.

    .. math::
        JS(p, e_y) = \frac{KL(p \| m) + KL(e_y \| m)}{2}
                   = \log 2 + \frac{p_y \log p_y - (1 + p_y) \log(1 + p_y)}{2},
        \quad m = \frac{p + e_y}{2}

    since every other class has p_j / m_j = 2.

    Args:
        target_probs: p_y, any shape.

    Returns:
        The shape of ``target_probs``, in float32 or its own wider type.

    Source:
        Martins, Marinho, Martins (EMNLP 2020), section 4.

    Example:
        >>> js_divergence(torch.tensor([1.0, 0.5, 0.0]))
        tensor([0.0000, 0.2158, 0.6931])
    """
    p = widened(target_probs)
    return math.log(2) + (torch.xlogy(p, p) - (1 + p) * torch.log1p(p)) / 2


def sparsemax_score(target_probs: Tensor, squared_norm: Tensor) -> Tensor:
    r"""1 minus half the squared distance of p and the one-hot e_y: 0 to 1, higher is better.

    .. math::
        sp(p, y) = p_y + \frac{1 - \|p\|^2}{2} = 1 - \frac{\|p - e_y\|^2}{2}

    Args:
        target_probs: p_y, any shape.
        squared_norm: |p|^2 of the same rows, of :func:`squared_norm`.

    Returns:
        The shape of ``target_probs``, in float32 or its own wider type.

    Source:
        Martins, Marinho, Martins (EMNLP 2020), section 4.

    Example:
        >>> sparsemax_score(torch.tensor([0.5]), torch.tensor([0.5]))  # p = (0.5, 0.5)
        tensor([0.7500])
    """
    return widened(target_probs) + (1 - widened(squared_norm)) / 2


@torch.no_grad()
def squared_norm(scores: Tensor, alpha: float = 1.5) -> Tensor:
    """|p|^2 of p = entmax_alpha(z): the chance that two draws from p are the same class.

    Args:
        scores: z, (..., V), any floating type.
        alpha: a number >= 1.

    Returns:
        (...), without a gradient; 0 where all scores are -inf.

    Raises:
        ValueError: alpha below 1, scores of a wrong type.

    Example:
        >>> squared_norm(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
        tensor([0.5000, 1.0000])
    """
    check_scores(scores)
    return entmax(widened(scores), alpha).square().sum(-1)


@torch.no_grad()
def linear_squared_norm(
    features: Tensor, weight: Tensor, alpha: float = 1.5, bias: Optional[Tensor] = None
) -> Tensor:
    """:func:`squared_norm` of the scores W x + b, of which few are held at a time.

    Args:
        features: x, (..., d); ``weight``: W, (V, d); ``bias``: b, (V,), or None.

    Returns:
        (...), without a gradient.

    Raises:
        ValueError: as :func:`squared_norm`.
    """
    rows = features.reshape(-1, features.shape[-1])
    parts = rows.split(max(1, _CHUNK_SCORES // max(1, len(weight))))
    norms = [squared_norm(linear(part, weight, bias), alpha) for part in parts]
    return torch.cat(norms).view(features.shape[:-1])


def check_epsilon(epsilon: float) -> None:
    """Raises:
    ValueError: epsilon is negative or no number.
    """
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon must be a number >= 0, got {epsilon}")
