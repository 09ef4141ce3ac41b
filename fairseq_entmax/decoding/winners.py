"""What one decoder call of exact search found, brought to the CPU in one transfer."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Winners(NamedTuple):
    """What one decoder call found, on the CPU: next tokens above the thresholds, (m,), and of each
    row (n,) the size of the support, and the largest log p and the mass of the other tokens.
    """

    row: Tensor
    token: Tensor
    log_prob: Tensor
    supports: Tensor
    largest_loser: Tensor
    lost_mass: Tensor


def winners(lprobs: Tensor, least: Tensor) -> Winners:
    """Of log-probabilities (n, V), wherever they lie, and thresholds (n,) on the CPU."""
    wide = torch.promote_types(lprobs.dtype, torch.float32)  # exact for numbers below 2^24
    wins = lprobs > _rounded_down(least, wide).to(lprobs.device).unsqueeze(1)
    others = lprobs.masked_fill(wins, -math.inf)
    row, token = wins.nonzero(as_tuple=True)
    supports = (lprobs > -math.inf).sum(1)
    columns = [row, token, lprobs[row, token], supports, others.amax(1), others.exp().sum(1)]
    joined = torch.cat([column.to(wide) for column in columns]).cpu().double()
    n, m = len(lprobs), len(row)
    row, token, log_prob, supports, largest, mass = joined.split([m, m, m, n, n, n])
    return Winners(row.long(), token.long(), log_prob, supports.long(), largest, mass)


def _rounded_down(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The largest numbers of this type that are not above: the same numbers of it exceed both."""
    near = values.to(dtype)
    below = torch.nextafter(near, torch.full_like(near, -math.inf))
    return torch.where(near.double() > values, below, near)
