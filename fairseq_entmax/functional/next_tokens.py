"""The next words of a decoder, without the probabilities of all others."""

import math
from typing import Optional

import torch
from torch import Tensor

from fairseq_entmax.kernels import plain
from fairseq_entmax.kernels.choose import choose, choose_device_layer
from fairseq_entmax.kernels.contract import NEAR_ONE, NextTokenLayer, NextTokens

from .checks import check_alpha, check_layer, check_scores


def next_token_layer(
    weight: Tensor, bias: Optional[Tensor] = None, alpha: float = 1.5, temperature: float = 1.0
) -> NextTokenLayer:
    """The output layer p = entmax((W x + b) / T), made ready for many calls of ``next_tokens``.

    Where the compiled kernels are, a copy of W is rounded here, so weights that change afterwards
    are not seen: make a new layer for each run of decoding.

    Args:
        weight: W, shape (V, d), any floating type; no gradient.
        bias: b, shape (V,), or None.
        alpha: a number > 1.
        temperature: T > 0.

    Returns:
        a layer with the method ``next_tokens(features, first, k)``, features (N, d): the columns
        0 to ``first`` - 1 in that order, then the k most probable of the others by falling
        probability; ``tokens`` and ``log_probs`` (-inf where p = 0) of shape (N, first + k), and
        ``support_size`` (N,), the number of columns with p > 0. first + k <= V.

    Raises:
        ValueError: alpha <= 1, a temperature that is no number above 0, wrong shapes or types.

    Source:
        The certificate is derived in ``kernels/native/next_tokens.py``.

    Example:
        >>> layer = next_token_layer(torch.tensor([[0.0], [1.0], [3.0], [2.0]]), alpha=2.0)
        >>> found = layer.next_tokens(torch.tensor([[0.6]]), first=1, k=2)
        >>> found.tokens.tolist(), found.support_size.tolist()
        ([[0, 2, 3]], [2])
        >>> found.log_probs.exp().round(decimals=4).tolist()
        [[0.0, 0.800000011920929, 0.20000000298023224]]
    """
    check_scores(weight)
    check_layer(weight, bias)
    check_alpha(alpha, weight, 1)
    if isinstance(alpha, Tensor) or alpha == 1 or not 0 < temperature < math.inf:
        raise ValueError(
            f"alpha must be a number > 1 and temperature a number > 0, got {alpha} and "
            f"{temperature}"
        )
    with torch.no_grad():
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        in_float64 = alpha > 2 and weight.device.type != "cpu"
        kernels = plain if in_float64 else choose(weight)
        options = (weight, bias, float(alpha), float(temperature))
        layer = kernels.next_token_layer(*options)
        on_device = choose_device_layer(weight, weight) if NEAR_ONE < alpha - 1 <= 1 else None
        return layer if on_device is None else on_device.swept_layer(*options, layer)


__all__ = ["NextTokenLayer", "NextTokens", "next_token_layer"]
