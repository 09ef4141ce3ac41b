"""The next words of a decoder from the scores of all words: what every back end can do."""

from typing import Any, Callable, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import NextTokens

CLOSED_FORMS = (1.5, 2.0)


class DenseLayer(NamedTuple):
    """A :class:`.contract.NextTokenLayer` on a back end's ``log_entmax``."""

    log_entmax: Callable[..., Any]
    weight: Tensor
    bias: Optional[Tensor]
    alpha: float
    temperature: float

    def next_tokens(self, x: Tensor, first: int, k: int) -> NextTokens:
        """As :meth:`.contract.NextTokenLayer.next_tokens`."""
        scores = F.linear(x, self.weight, self.bias)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) / self.temperature
        alpha = torch.full((1, 1), self.alpha, dtype=torch.float64)
        closed = self.alpha if self.alpha in CLOSED_FORMS else None
        log_probs = self.log_entmax(scores, alpha, closed)
        best = log_probs[:, first:].topk(k, 1)
        head = torch.arange(first, device=x.device).expand(len(x), -1)
        return NextTokens(
            torch.cat([head, best.indices + first], 1),
            torch.cat([log_probs[:, :first], best.values], 1),
            (log_probs > float("-inf")).sum(1),
        )
