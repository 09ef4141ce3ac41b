"""Log-probabilities of a sparse output, as search needs them."""

import math

import torch
from torch import Tensor

from .checks import check_alpha, check_dim, check_scores
from .dispatch import compiled
from .mapping import entmax, flatten_rows
from .rows import NEAR_ONE


def log_entmax(scores: Tensor, alpha: float = 1.5) -> Tensor:
    r"""``entmax(scores, alpha).log()`` along the last dimension, without taking log 0.

    .. math::
        \log p_j \;\text{on the support of}\; p = \mathrm{entmax}_\alpha(z),
        \quad -\infty \;\text{elsewhere}

    Processors take many times longer for the logarithm of a zero than for any other, and most
    probabilities are zero.

    Args:
        scores: z, shape (..., V), any floating type. ``-inf`` masks an entry.
        alpha: a number > 1.

    Returns:
        log p, shape and dtype of ``scores``, without a gradient.

    Raises:
        ValueError: as :func:`entmax`.

    Source:
        Peters, Niculae, Martins (ACL 2019), eq. 5.

    Example:
        >>> import torch
        >>> log_entmax(torch.tensor([2.0, 1.5, -1.0]), alpha=2.0)  # p = [0.75, 0.25, 0]
        tensor([-0.2877, -1.3863,    -inf])
    """
    check_scores(scores)
    check_alpha(alpha, scores, check_dim(scores, -1))
    scores = scores.detach()
    kernels = compiled(scores)
    if kernels is None or scores.numel() == 0 or not alpha > 1 + NEAR_ONE:
        return _log_of_support(entmax(scores, alpha))
    rows, row_alpha, closed = flatten_rows(scores, alpha, -1)
    log_probs: Tensor = kernels.entmax_forward(rows, row_alpha, closed, logarithm=True)
    return log_probs.view(scores.shape)


def _log_of_support(probs: Tensor) -> Tensor:
    if probs.device.type != "cpu":  # where zeros cost no more, and to find them would wait
        return probs.log()
    flat = probs.reshape(-1)
    support = flat.nonzero().squeeze(1)
    log_probs = torch.full_like(flat, -math.inf)
    log_probs[support] = flat[support].log()
    return log_probs.view(probs.shape)
