"""Threshold of a set of scores: one Newton step on the q-norm, q = 1 / (alpha - 1), in float32.

s = z - max z <= 0 and gap = alpha - 1. KIND names the form:

* 15: x = s / 2, threshold in [-1, 0), p = (x - threshold)^2;
* 20: x = s, p = x - threshold;
* 0, any alpha in (1, 2]: v = (threshold + 1) / gap >= 0, p = (1 + gap (s - v))^(1 / gap), which
  stays exact as alpha -> 1, where v -> log sum exp s.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
INF = tl.constexpr(float("inf"))


@triton.jit
def log2_1p(w):
    """log2(1 + w) for -1 <= w <= 0, exact for tiny w (Kahan)."""
    u = 1.0 + w
    ratio = tl.where(u == 1.0, 1.0, w / tl.where(u == 1.0, 1.0, u - 1.0))
    return tl.where(u == 1.0, w * LOG2E, tl.log2(tl.maximum(u, 1e-37)) * ratio)


@triton.jit
def terms(s, theta, low, gap, KIND: tl.constexpr):
    """d^(q-1) and d^q of each entry; the threshold is theta + low, low a correction below its
    rounding.
    """
    if KIND == 15:
        d = tl.maximum((0.5 * s - theta) - low, 0.0)
        return d, d * d
    elif KIND == 20:
        d = tl.maximum((s - theta) - low, 0.0)
        return (d > 0).to(tl.float32), d
    else:
        w = gap * ((s - theta) - low)
        inside = w > -1.0
        w = tl.where(inside, w, -1.0)
        p = tl.where(inside, tl.exp2(log2_1p(w) / gap), 0.0)
        return tl.where(inside, p / tl.maximum(1.0 + w, 1e-30), 0.0), p


@triton.jit
def newton(slope, total, gap, KIND: tl.constexpr):
    """The step of the threshold from the sums of ``terms``."""
    if KIND == 15:
        norm = tl.sqrt(total)
        return (norm - 1.0) * norm / slope
    elif KIND == 20:
        return (total - 1.0) / slope
    else:
        y = -gap * tl.log2(total) * LN2
        small = y * (1.0 + y * (0.5 + y * (1.0 / 6.0)))
        expm1 = tl.where(tl.abs(y) < 1e-2, small, tl.exp2(y * LOG2E) - 1.0)
        return -expm1 / gap * total / slope


@triton.jit
def start(KIND: tl.constexpr):
    """A threshold from which Newton never overshoots."""
    if KIND == 0:
        return 0.0
    else:
        return -1.0


@triton.jit
def unsettled(step, theta, KIND: tl.constexpr):
    """Whether the step still changes p by more than 3e-5 of itself or so; NaN does not."""
    if KIND == 0:
        return step > 3e-5
    else:
        return step > -3e-5 * theta


@triton.jit
def entropy_term(p, gap, KIND: tl.constexpr):
    """The summand of ``entropy`` for a probability."""
    if KIND == 15:
        return p * tl.sqrt(p)
    elif KIND == 20:
        return p * p
    else:  # p expm1(gap log p)
        y = gap * tl.log2(tl.maximum(p, 1e-37)) * LN2
        small = y * (1.0 + y * (0.5 + y * (1.0 / 6.0)))
        return tl.where(p > 0, p * tl.where(tl.abs(y) < 1e-2, small, tl.exp(y) - 1.0), 0.0)


@triton.jit
def entropy(power, gap, KIND: tl.constexpr):
    """H_alpha from the sum of ``entropy_term``."""
    if KIND == 15:
        return (1.0 - power) / 0.75
    elif KIND == 20:
        return (1.0 - power) * 0.5
    else:
        return -power / (gap * (1.0 + gap))
