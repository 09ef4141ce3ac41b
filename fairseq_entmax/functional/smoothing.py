"""Label smoothing towards a distribution q over the classes: uniform, or their frequencies.

The term z_y - q.z is added to the loss as it is: above an output layer z = W x + b it is
x.(W_y - W^T q) + b_y - q.b, which never needs the scores.
"""

import math
from typing import Iterator, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """16-bit tensors are computed with in float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


_TILE_CLASSES = 8192  # of a 16-bit weight that are widened at a time


def class_tiles(weight: Tensor) -> Iterator[Tuple[slice, Tensor]]:
    """A weight (V, d) by its rows, each part widened when it is asked for."""
    size = len(weight) if weight.dtype == widened(weight[:0]).dtype else _TILE_CLASSES
    for i in range(0, len(weight), max(1, size)):
        classes = slice(i, i + size)
        yield classes, widened(weight[classes])


def normalized(probs: Optional[Tensor], allowed: Tensor, ignore_index: int) -> Tensor:
    """probs (None: all alike) over the allowed classes without ``ignore_index``, else 0."""
    q = allowed if probs is None else probs.to(allowed) * allowed
    if 0 <= ignore_index < q.shape[-1]:
        q = q * (torch.arange(q.shape[-1], device=q.device) != ignore_index)
    return q / q.sum(-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)


def smoothing_term(z: Tensor, y: Tensor, probs: Optional[Tensor], ignore_index: int) -> Tensor:
    """z_y - q.z of scores (..., V), shape (...); 0 where y is ignored or all is masked."""
    open_classes = z.detach() > -math.inf
    kept = (y != ignore_index) & open_classes.any(-1)
    q = normalized(probs, open_classes.to(z.dtype), ignore_index)
    z_y = z.gather(-1, y.masked_fill(~kept, 0).unsqueeze(-1)).squeeze(-1)
    term = z_y - (q * z.masked_fill(~open_classes, 0.0)).sum(-1)
    return term.masked_fill(~kept, 0.0)


class Options(NamedTuple):
    """The numbers of a fused output layer and its loss."""

    alpha: float
    ignore_index: int
    uniform: bool
    label_smoothing: float
    smoothing_probs: Optional[Tensor]


class LinearSmoothing(NamedTuple):
    """eps times ``smoothing_term`` of W x + b for x (N, d), in O(V d): without the scores."""

    x: Tensor
    bias: Optional[Tensor]
    y: Tensor  # valid in every row
    kept: Tensor
    q: Tensor
    difference: Tensor  # W_y - W^T q, (N, d)
    eps: float

    @classmethod
    def of(
        cls, x: Tensor, weight: Tensor, bias: Optional[Tensor], y: Tensor, options: Options
    ) -> "LinearSmoothing":
        """What the term needs of features x (N, d), weight (V, d), bias (V,) and targets (N,)."""
        kept, allowed = y != options.ignore_index, widened(weight.new_ones(len(weight)))
        if bias is not None:
            bias = widened(bias)
            allowed = (bias > -math.inf).to(allowed)
            kept = kept & (allowed > 0).any()
        q = normalized(options.smoothing_probs, allowed, options.ignore_index)
        y = y.masked_fill(~kept, 0)
        difference = widened(weight[y])
        for classes, tile in class_tiles(weight):
            difference -= q[classes] @ tile
        return cls(widened(x), bias, y, kept, q, difference, options.label_smoothing)

    def term(self) -> Tensor:
        """The share of each row in the loss, (N,)."""
        term = (self.x * self.difference).sum(-1)
        if self.bias is not None:
            mean = self.q @ self.bias.masked_fill(self.bias == -math.inf, 0.0)
            term = term + self.bias[self.y] - mean
        return self.eps * term.masked_fill(~self.kept, 0.0)

    def add_gradients(self, into: Sequence[Optional[Tensor]], grad: Tensor) -> None:
        """Add the term's share to the gradients of x, W and b, given that of the losses."""
        scale = self.eps * grad.masked_fill(~self.kept, 0.0).to(self.x.dtype)
        features, weight, bias = into
        if features is not None:
            features.addcmul_(scale.unsqueeze(1), self.difference)
        if weight is not None:
            weight.index_add_(0, self.y, scale.unsqueeze(1) * self.x)
            weight.addr_(self.q, scale @ self.x, alpha=-1)
        if bias is not None:
            bias.index_add_(0, self.y, scale).sub_(self.q * scale.sum())
