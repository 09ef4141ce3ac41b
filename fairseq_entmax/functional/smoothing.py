"""Label smoothing towards any distribution over the classes, such as their frequencies.

The term z_y - q.z is added to the loss as it is: above an output layer z = W x + b it is
x.(W_y - W^T q) + b_y - q.b, which never needs the scores.
"""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor


def normalized(probs: Tensor, allowed: Tensor, ignore_index: int) -> Tensor:
    """probs as a distribution over the allowed classes without ``ignore_index``, else 0."""
    q = probs * allowed
    if 0 <= ignore_index < q.shape[-1]:
        inside = torch.arange(q.shape[-1], device=q.device) != ignore_index
        q = q * inside
    return q / q.sum(-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)


def smoothing_term(z: Tensor, y: Tensor, probs: Tensor, ignore_index: int) -> Tensor:
    """z_y - q.z of scores (..., V), shape (...); 0 where y is ignored or all is masked."""
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    open_classes = z.detach() > -math.inf
    kept = (y != ignore_index) & open_classes.any(-1)
    q = normalized(probs.to(z), open_classes, ignore_index)
    z_y = z.gather(-1, y.masked_fill(~kept, 0).unsqueeze(-1)).squeeze(-1)
    term = z_y - (q * z.masked_fill(~open_classes, 0.0)).sum(-1)
    return term.masked_fill(~kept, 0.0)


def linear_smoothing_term(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], y: Tensor, probs: Tensor, ignore_index: int
) -> Tensor:
    """``smoothing_term`` of W x + b for features x (..., d), in O(V d), without the scores."""
    with torch.autocast(x.device.type, enabled=False):  # rounded means would shift every loss
        x, weight, bias = _wide(x, weight, bias)
        kept = y != ignore_index
        allowed = torch.ones_like(weight[:, 0], dtype=torch.bool)
        if bias is not None:
            allowed = bias.detach() > -math.inf
            kept = kept & allowed.any()
        q = normalized(probs.to(weight), allowed, ignore_index)
        safe_y = y.masked_fill(~kept, 0)
        term = (x * (weight[safe_y] - q @ weight)).sum(-1)
        if bias is not None:
            term = term + bias[safe_y] - q @ bias.masked_fill(~allowed, 0.0)
        return term.masked_fill(~kept, 0.0)


def _wide(
    x: Tensor, weight: Tensor, bias: Optional[Tensor]
) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    """16-bit tensors are computed with in float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
