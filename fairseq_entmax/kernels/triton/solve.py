"""The threshold of alpha-entmax, 1 < alpha <= 2, as device functions that every kernel shares.

With s = z - max z <= 0 and gap = alpha - 1, theta is the threshold in the units of the KIND:

* KIND 15 (alpha 1.5): p = [s / 2 - theta]_+^2, theta in [-1, 0);
* KIND 20 (alpha 2): p = [s - theta]_+, theta in [-1, 0);
* KIND 0 (any alpha): p = [1 + gap (s - theta)]_+^(1 / gap), theta = (tau + 1) / gap >= 0, which
  stays exact as alpha goes to 1, where theta is log sum exp s.

Newton from below on the q-norm of the row, which is convex in theta and falls, never overshoots.
The last step is kept apart as ``low``: in (s - theta) - low the first difference is exact where
cancellation hurts, near the edge.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
INF = tl.constexpr(float("inf"))
NAN = tl.constexpr(float("nan"))
TINY = tl.constexpr(1e-37)  # a normal float32: subnormal constants would be float64
STEPS_ON_MAXIMA = tl.constexpr(12)
STEPS = tl.constexpr(30)  # a bound on what rounding could make endless; 2 to 9 are taken


@triton.jit
def nan_max(a, b):
    """The larger one, or NaN."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def sum2(a, b):
    """The sums of two tiles."""
    return tl.sum(a), tl.sum(b)


@triton.jit
def gap_of(gap, gap_ptr, row, BY_ROW: tl.constexpr):
    """alpha - 1 of a row: its own, or the constant."""
    if BY_ROW:
        return tl.load(gap_ptr + row)
    else:
        return gap


@triton.jit
def log2_1p(w):
    """log2(1 + w) for -1 <= w <= 0, exact for tiny w (Kahan)."""
    u = 1.0 + w
    same = u == 1.0
    ratio = tl.where(same, 1.0, w / tl.where(same, 1.0, u - 1.0))
    return tl.where(same, w * LOG2E, tl.log2(tl.maximum(u, TINY)) * ratio)


@triton.jit
def expm1(y):
    """exp(y) - 1, exact for small y."""
    series = y * (1.0 + y * (0.5 + y * (1.0 / 6.0)))
    return tl.where(tl.abs(y) < 1e-2, series, tl.exp2(y * LOG2E) - 1.0)


@triton.jit
def terms(s, theta, low, gap, KIND: tl.constexpr):
    """p / d and p of each entry for the threshold theta + low."""
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
    """The step of theta from the sums of ``terms``."""
    if KIND == 15:
        norm = tl.sqrt(total)
        return (norm - 1.0) * norm / slope
    elif KIND == 20:
        return (total - 1.0) / slope
    else:
        return -expm1(-gap * tl.log2(total) * LN2) / gap * total / slope


@triton.jit
def start(KIND: tl.constexpr):
    """Below every threshold."""
    if KIND == 0:
        return 0.0
    else:
        return -1.0


@triton.jit
def unsettled(step, theta, KIND: tl.constexpr):
    """Whether a step still changed p by more than 3e-5 of itself or so; NaN did not."""
    if KIND == 0:
        return step > 3e-5
    else:
        return step > -3e-5 * theta


@triton.jit
def slack(KIND: tl.constexpr):
    """The rounding of a lower bound computed in float32."""
    if KIND == 0:
        return 4e-6
    else:
        return 4e-7


@triton.jit
def edge(theta, gap, KIND: tl.constexpr):
    """s at and below which p = 0."""
    if KIND == 15:
        return 2.0 * theta
    elif KIND == 20:
        return theta
    else:
        return theta - 1.0 / gap


@triton.jit
def iterated(s, theta, gap, KIND: tl.constexpr, MOST: tl.constexpr):
    """theta after Newton's steps on a tile, from below."""
    step = 1.0
    i = 0
    while unsettled(step, theta, KIND) & (i < MOST):
        slope, total = terms(s, theta, 0.0, gap, KIND)
        slope, total = sum2(slope, total)
        step = newton(slope, total, gap, KIND)
        theta += step
        i += 1
    return theta


@triton.jit
def finite_or_zero(largest):
    """What to subtract from a row's scores: not the -inf of a dead row."""
    return tl.where(largest > -INF, largest, 0.0)


@triton.jit
def sensitivity(p, gap, KIND: tl.constexpr):
    """p^(2 - alpha) on the support, else 0."""
    if KIND == 15:
        return tl.sqrt(p)
    elif KIND == 20:
        return (p > 0).to(tl.float32)
    else:
        return tl.where(p > 0, tl.exp2((1.0 - gap) * tl.log2(tl.maximum(p, TINY))), 0.0)


@triton.jit
def entropy_term(p, gap, KIND: tl.constexpr):
    """The summand of ``entropy`` for a probability."""
    if KIND == 15:
        return p * tl.sqrt(p)
    elif KIND == 20:
        return p * p
    else:
        return tl.where(p > 0, p * expm1(gap * tl.log2(tl.maximum(p, TINY)) * LN2), 0.0)


@triton.jit
def entropy(power, gap, KIND: tl.constexpr):
    """H_alpha(p) = (1 - sum p^alpha) / (alpha (alpha - 1)) from the sum of ``entropy_term``."""
    if KIND == 15:
        return (1.0 - power) / 0.75
    elif KIND == 20:
        return (1.0 - power) * 0.5
    else:
        return -power / (gap * (1.0 + gap))
