"""The next words of a decoder from one sweep over the classes, without scores in memory."""

from typing import NamedTuple, Optional

import torch
from torch import Tensor

from ..contract import NextTokenLayer, NextTokens
from . import output_layer


class SweptLayer(NamedTuple):
    """As :class:`.contract.NextTokenLayer`; the dense layer does rows whose supports are long."""

    weight: Tensor
    bias: Optional[Tensor]
    alpha: float
    temperature: float
    dense: NextTokenLayer

    def next_tokens(self, x: Tensor, first: int, k: int) -> NextTokens:
        """As :meth:`.contract.NextTokenLayer.next_tokens`; the host looks once at what is left."""
        if k > output_layer.KEPT or len(x) == 0 or x.dtype != self.weight.dtype:
            return self.dense.next_tokens(x, first, k)
        solved = output_layer.solve_layer(
            x, self.weight, self.bias, None, self.alpha, 1 / self.temperature
        )
        place = torch.arange(output_layer.KEPT, device=x.device)
        kept = place < solved.n_kept.unsqueeze(1)
        log_probs = solved.values.masked_fill(~kept, 0.0).log()
        columns = solved.columns.long().masked_fill(~kept, first)
        found = _listed(columns, log_probs, first, k, solved.support_size.long())
        left = (solved.n_kept < 0).nonzero().squeeze(1)
        if len(left):
            for whole, part in zip(found, self.dense.next_tokens(x[left], first, k)):
                whole[left] = part.to(whole.dtype)
        return found


def _listed(columns: Tensor, log_probs: Tensor, first: int, k: int, size: Tensor) -> NextTokens:
    """The columns below ``first``, then the k best of the others, of lists with a column each."""
    head = log_probs.new_full((len(columns), first + 1), float("-inf"))
    special = columns < first
    # the others share a place that is dropped
    head.scatter_(1, columns.clamp(max=first), log_probs)
    best = log_probs.masked_fill(special, float("-inf")).topk(k, 1)
    tokens = torch.arange(first, device=columns.device).expand(len(columns), -1)
    return NextTokens(
        torch.cat([tokens, columns.gather(1, best.indices)], 1),
        torch.cat([head[:, :first], best.values], 1),
        size,
    )


def swept_layer(
    weight: Tensor, bias: Optional[Tensor], alpha: float, temperature: float, dense: NextTokenLayer
) -> SweptLayer:
    """As :meth:`.DeviceLayerKernels.swept_layer`."""
    return SweptLayer(weight, bias, alpha, temperature, dense)
