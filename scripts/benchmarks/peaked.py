"""Random weights whose output is as peaked as a trained model's: the gain of the last layer norm is
set by the wanted support, and a support that is another is refused.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_entmax.functional import entmax

SUPPORT = 13  # words of a trained translation model
TOLERANCE = 0.25  # by which the mean support may differ from the wanted one


def last_norm(decoder: Any) -> nn.Module:
    """What the features come from, before or after the layers."""
    norm = decoder.layer_norm
    return norm if norm is not None else decoder.layers[-1].final_layer_norm


@torch.no_grad()
def features(model: Any, net_input: Any) -> Tensor:
    """(tokens, d), what the output layer multiplies."""
    model.eval()
    return model(**net_input, features_only=True)[0].flatten(0, 1)


def mean_support(x: Tensor, weight: Tensor) -> float:
    scores = torch.nn.functional.linear(x[:512], weight)
    return float((entmax(scores, 1.5) > 0).sum(1).double().mean())


@torch.no_grad()
def set_support(model: Any, net_input: Any, support: float = SUPPORT) -> None:
    """Scale the features until alpha = 1.5 finds ``support`` words possible on average."""
    x, weight = features(model, net_input), model.decoder.output_projection.weight
    few, many = 1e-3, 1e3  # factors by which the support is too wide and too narrow
    for _ in range(30):
        middle = (few * many) ** 0.5
        if mean_support(x * middle, weight) > support:
            few = middle
        else:
            many = middle
    for parameter in last_norm(model.decoder).parameters():
        parameter.mul_(middle)


def check_support(model: Any, net_input: Any, support: float, case: str) -> None:
    """Raises:
    SystemExit: the mean support is not about the wanted one.
    """
    found = mean_support(features(model, net_input), model.decoder.output_projection.weight)
    print(f"{case}: mean support {found:.0f}", file=sys.stderr)
    if not abs(found / support - 1) <= TOLERANCE:
        raise SystemExit(f"{case}: a mean support of {found:.0f} where {support} was to be timed")
