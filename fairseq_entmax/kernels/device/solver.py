"""The threshold of alpha-entmax, 1 <= alpha <= 2, in float32 and a fixed number of steps.

With s = z - max z and gap = alpha - 1, p = d^(1 / gap) for d = [gap s - tau]_+. The threshold
theta stands in the units of s, so that float32 is enough:

* gap >= 1/2: d = gap (s - theta), theta = tau / gap being the edge of the support;
* gap < 1/2: d = 1 + gap (s - theta), theta = (tau + 1) / gap, and p by log1p. At gap = 0 that is
  exp(s - theta), and theta the logarithm of the sum of exponentials.

The last Newton step is kept apart as ``low``: in (s - theta) - low the first difference is exact
where cancellation hurts, near the edge.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor

from ..formulas import Gap

_WIDE = 0.5  # the gap from which the support has an edge that float32 can tell
_GROUP = 32  # entries per group of a long row
_LONG_ROW = 512
# Newton from below never overshoots, so steps too many do no harm; what the worst of many kinds of
# rows needs (tests/kernels/test_device.py), and two more
_STEPS, _STEPS_ON_MAXIMA, _STEPS_FROM_BOUND = 9, 10, 6
_STEPS_15 = 6  # of short rows with alpha 1.5


def terms(
    s: Tensor, theta: Tensor, low: Optional[Tensor], gap: Gap, closed: Optional[float]
) -> Tuple[Tensor, Tensor]:
    """p of these scores before it is normalised, and its slope p / d, 0 outside the support."""
    x = s - theta if low is None else (s - theta) - low
    x = x if closed == 2.0 else gap * x
    if closed == 1.5:
        d = x.clamp(min=0)
        return d.square(), d
    if closed == 2.0:
        d = x.clamp(min=0)
        return d, (d > 0).to(d.dtype)
    d, log_d = _base_and_log(x, gap)
    p = (log_d / gap).exp()
    return p, p / d.clamp(min=1e-30)


def _base_and_log(x: Tensor, gap: Gap) -> Tuple[Tensor, Tensor]:
    """d and its logarithm."""
    if isinstance(gap, Tensor):
        d, log_d = _base_and_log(x, 0.0)
        wide, wide_log = _base_and_log(x, 1.0)
        return torch.where(gap < _WIDE, d, wide), torch.where(gap < _WIDE, log_d, wide_log)
    if gap < _WIDE:
        x = x.clamp(min=-1)
        return 1 + x, x.log1p()
    d = x.clamp(min=0)
    return d, d.log()


def newton_step(s: Tensor, theta: Tensor, gap: Gap, closed: Optional[float]) -> Tensor:
    """One step on the q-norm of the row, which is convex in theta and falls, (N, 1)."""
    p, slope = terms(s, theta, None, gap, closed)
    total, slopes = p.sum(1, keepdim=True), slope.sum(1, keepdim=True)
    if closed == 1.5:
        norm = total.sqrt()
        return (norm - 1) * norm / (0.5 * slopes)
    if closed == 2.0:
        return (total - 1) / slopes
    return -torch.expm1(-gap * total.log()) / gap * total / slopes


def _iterated(s: Tensor, theta: Tensor, gap: Gap, closed: Optional[float], n: int) -> Tensor:
    for _ in range(n):
        theta = theta + newton_step(s, theta, gap, closed)
    return theta


def _start(like: Tensor, gap: Gap) -> Tensor:
    """Below every threshold: tau = -1."""
    if isinstance(gap, Tensor):
        return torch.where(gap < _WIDE, torch.zeros_like(gap), -1 / gap).expand_as(like)
    return torch.full_like(like, 0.0 if gap < _WIDE else -1 / gap)


def _lower_bound(z: Tensor, largest: Tensor, gap: Gap, closed: Optional[float]) -> Tensor:
    """The threshold of the maxima of groups: that of a subset is never above the row's."""
    n_groups = z.shape[1] // _GROUP
    maxima = z[:, : n_groups * _GROUP].unflatten(1, [_GROUP, n_groups]).amax(1)
    start = _start(largest, gap)
    theta = _iterated(maxima.to(torch.float32) - largest, start, gap, closed, _STEPS_ON_MAXIMA)
    slack = 4e-6 if closed is None else 8e-7  # float32 may have carried it too far
    # maxima that lie far below the row's own tell nothing
    return torch.where(theta - slack > start, theta - slack, start)


def solve_threshold(
    z: Tensor, largest: Tensor, gap: Gap, closed: Optional[float]
) -> Tuple[Tensor, Tensor, Tensor]:
    """s = z - largest (N, V), theta and low (N, 1); NaN in a row of -inf and one with NaN, +inf."""
    s = z.to(torch.float32) - largest
    if z.shape[1] < _LONG_ROW:
        theta = _iterated(
            s, _start(largest, gap), gap, closed, _STEPS_15 if closed == 1.5 else _STEPS
        )
    else:
        theta = _lower_bound(z, largest, gap, closed)
        theta = _iterated(s, theta, gap, closed, _STEPS_FROM_BOUND)
    return s, theta, newton_step(s, theta, gap, closed)
