"""alpha-entmax of long rows, forward and backward: one program a row (docs/gpu.md).

Columns and strides come in units of UNIT entries, since Triton makes 128-bit accesses only of what
it can prove to be aligned, and a vocabulary is a multiple of 8, seldom of 16.
"""

import triton
import triton.language as tl

from .solve import (
    INF,
    NAN,
    STEPS,
    STEPS_ON_MAXIMA,
    edge,
    finite_or_zero,
    gap_of,
    iterated,
    nan_max,
    newton,
    sensitivity,
    slack,
    start,
    sum2,
    terms,
    unsettled,
)


@triton.jit
def written(p, LOG: tl.constexpr):
    """p as it is stored, or its logarithm."""
    if LOG:
        return tl.log(p)
    else:
        return p


@triton.jit
def resident_forward(
    z_ptr, out_ptr, gap_ptr, gap, n_units, z_units, out_units,
    KIND: tl.constexpr, BY_ROW: tl.constexpr, LOG: tl.constexpr, BLOCK: tl.constexpr,
    LANES: tl.constexpr, VEC: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """A row that fits into registers: one read, one write."""
    row = tl.program_id(0).to(tl.int64)
    gap = gap_of(gap, gap_ptr, row, BY_ROW)
    cols = tl.arange(0, BLOCK)
    inside = cols < n_units * UNIT
    z = tl.load(z_ptr + row * (z_units * UNIT) + cols, mask=inside, other=-INF).to(tl.float32)
    # one maximum a thread, found without the others; their threshold is a bound of the row's
    groups = tl.max(tl.max(tl.reshape(z, (BLOCK // (LANES * VEC), LANES, VEC)), axis=2), axis=0)
    largest = tl.reduce(z, 0, nan_max)
    s = z - finite_or_zero(largest)
    groups = groups - finite_or_zero(largest)
    theta = iterated(groups, start(KIND), gap, KIND, STEPS_ON_MAXIMA) - slack(KIND)
    theta = iterated(s, theta, gap, KIND, STEPS)
    slope, total = terms(s, theta, 0.0, gap, KIND)
    slope, total = sum2(slope, total)
    _, p = terms(s, theta, newton(slope, total, gap, KIND), gap, KIND)
    if KIND == 0:
        p = p / tl.sum(p)
    p = tl.where(largest < INF, p, NAN)
    p = tl.where(largest == -INF, 0.0, p)
    p = written(p, LOG).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * (out_units * UNIT) + cols, p, mask=inside)


@triton.jit
def scan(
    z_row, out_row, maxima_ptr, n_cols,
    FILL: tl.constexpr, LOG: tl.constexpr, BLOCK: tl.constexpr, SUB: tl.constexpr,
):  # fmt: skip
    """Maxima of the SUB-wide pieces of a row; with FILL also zeros into the output."""
    pieces: tl.constexpr = BLOCK // SUB
    piece = tl.arange(0, pieces)
    offset = piece[:, None] * SUB + tl.arange(0, SUB)[None, :]
    for first in tl.range(0, n_cols, BLOCK):
        inside = offset < n_cols - first
        z = tl.load(z_row + first + offset, mask=inside, other=-INF).to(tl.float32)
        maxima = tl.reduce(z, 1, nan_max)
        there = piece < tl.cdiv(n_cols - first, SUB)
        tl.store(maxima_ptr + first // SUB + piece, maxima, mask=there)
        if FILL:
            zeros = written(tl.zeros((pieces, SUB), tl.float32), LOG)
            tl.store(out_row + first + offset, zeros.to(out_row.dtype.element_ty), mask=inside)


@triton.jit
def bound(maxima_ptr, active_ptr, n_pieces, gap, KIND: tl.constexpr, PIECES: tl.constexpr):
    """The row's maximum, a lower bound of its threshold; lists the pieces that can hold support."""
    index = tl.arange(0, PIECES)
    maxima = tl.load(maxima_ptr + index, mask=index < n_pieces, other=-INF)
    largest = tl.reduce(maxima, 0, nan_max)
    maxima = maxima - finite_or_zero(largest)
    theta = iterated(maxima, start(KIND), gap, KIND, STEPS_ON_MAXIMA) - slack(KIND)
    # scalar and block conditions joined by & fail in the interpreter
    usable = (largest > -INF) & (largest < INF)
    alive = maxima > tl.where(usable, edge(theta, gap, KIND), INF)
    place = tl.cumsum(alive.to(tl.int32), 0) - 1
    tl.store(active_ptr + place, index, mask=alive)
    return largest, theta, tl.sum(alive.to(tl.int32))


@triton.jit
def active_tile(
    z_row, active_ptr, i, n_active, largest, n_cols, AT_ONCE: tl.constexpr, SUB: tl.constexpr
):
    """AT_ONCE of the listed pieces as a tile of s, its columns, and which of them are there."""
    which = i + tl.arange(0, AT_ONCE)
    piece = tl.load(active_ptr + which, mask=which < n_active, other=0)
    cols = piece[:, None] * SUB + tl.arange(0, SUB)[None, :]
    inside = (which < n_active)[:, None] & (cols < n_cols)
    z = tl.load(z_row + cols, mask=inside, other=-INF).to(tl.float32)
    return z - largest, cols, inside


@triton.jit
def active_sums(
    z_row, active_ptr, n_active, largest, theta, low, n_cols, gap,
    KIND: tl.constexpr, AT_ONCE: tl.constexpr, SUB: tl.constexpr,
):  # fmt: skip
    """The sums of ``terms`` over the listed pieces."""
    slopes = tl.zeros((AT_ONCE, SUB), tl.float32)
    totals = tl.zeros((AT_ONCE, SUB), tl.float32)
    for i in tl.range(0, n_active, AT_ONCE):
        s, _, _ = active_tile(z_row, active_ptr, i, n_active, largest, n_cols, AT_ONCE, SUB)
        slope, total = terms(s, theta, low, gap, KIND)
        slopes += slope
        totals += total
    return sum2(slopes, totals)


@triton.jit
def solve_active(
    z_row, active_ptr, n_active, largest, theta, n_cols, gap,
    KIND: tl.constexpr, AT_ONCE: tl.constexpr, SUB: tl.constexpr,
):  # fmt: skip
    """theta, low and what p is divided by, from a lower bound."""
    step = 1.0
    i = 0
    while unsettled(step, theta, KIND) & (i < STEPS):
        slope, total = active_sums(
            z_row, active_ptr, n_active, largest, theta, 0.0, n_cols, gap, KIND, AT_ONCE, SUB
        )
        step = newton(slope, total, gap, KIND)
        theta += step
        i += 1
    slope, total = active_sums(
        z_row, active_ptr, n_active, largest, theta, 0.0, n_cols, gap, KIND, AT_ONCE, SUB
    )
    low = newton(slope, total, gap, KIND)
    norm = 1.0
    if KIND == 0:
        _, norm = active_sums(
            z_row, active_ptr, n_active, largest, theta, low, n_cols, gap, KIND, AT_ONCE, SUB
        )
    return theta, low, norm


@triton.jit
def solve_row(
    z_row, out_row, maxima_ptr, active_ptr, n_cols, gap,
    FILL: tl.constexpr, LOG: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr,
    SUB: tl.constexpr, PIECES: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """A row's maximum, theta, low, what p is divided by, and how many pieces are listed."""
    scan(z_row, out_row, maxima_ptr, n_cols, FILL, LOG, BLOCK, SUB)
    tl.debug_barrier()
    n_pieces = tl.cdiv(n_cols, SUB)
    largest, theta, n_active = bound(maxima_ptr, active_ptr, n_pieces, gap, KIND, PIECES)
    tl.debug_barrier()
    theta, low, norm = solve_active(
        z_row, active_ptr, n_active, largest, theta, n_cols, gap, KIND, AT_ONCE, SUB
    )
    return largest, theta, low, norm, n_active


@triton.jit
def fill(out_row, value, n_cols, BLOCK: tl.constexpr):
    """One value in the whole row."""
    offset = tl.arange(0, BLOCK)
    for first in tl.range(0, n_cols, BLOCK):
        values = (tl.zeros((BLOCK,), tl.float32) + value).to(out_row.dtype.element_ty)
        tl.store(out_row + first + offset, values, mask=offset < n_cols - first)


@triton.jit
def streamed_forward(
    z_ptr, out_ptr, maxima_ptr, active_ptr, gap_ptr, gap, n_units, z_units, out_units, scratch,
    KIND: tl.constexpr, BY_ROW: tl.constexpr, LOG: tl.constexpr, BLOCK: tl.constexpr,
    SUB: tl.constexpr, PIECES: tl.constexpr, AT_ONCE: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """A row of any length: one read, one write, and again, from the cache, what holds support."""
    row = tl.program_id(0).to(tl.int64)
    gap = gap_of(gap, gap_ptr, row, BY_ROW)
    n_cols = n_units * UNIT
    z_row = z_ptr + row * (z_units * UNIT)
    out_row = out_ptr + row * (out_units * UNIT)
    maxima_ptr += row * scratch
    active_ptr += row * scratch
    largest, theta, low, norm, n_active = solve_row(
        z_row, out_row, maxima_ptr, active_ptr, n_cols, gap,
        True, LOG, KIND, BLOCK, SUB, PIECES, AT_ONCE,
    )  # fmt: skip
    for i in tl.range(0, n_active, AT_ONCE):
        s, cols, inside = active_tile(z_row, active_ptr, i, n_active, largest, n_cols, AT_ONCE, SUB)
        _, p = terms(s, theta, low, gap, KIND)
        p = written(p / norm, LOG)
        tl.store(out_row + cols, p.to(out_row.dtype.element_ty), mask=inside)
    if (largest == INF) | (largest != largest):
        fill(out_row, NAN, n_cols, BLOCK)


@triton.jit
def support_tile(p_row, grad_row, first, n_cols, PIECES: tl.constexpr, SUB: tl.constexpr):
    """p of some pieces, and the gradient of those with support; masks by piece keep loads wide."""
    offset = tl.arange(0, PIECES)[:, None] * SUB + tl.arange(0, SUB)[None, :]
    inside = offset < n_cols - first
    p = tl.load(p_row + first + offset, mask=inside, other=0.0).to(tl.float32)
    alive = tl.max((p != 0.0).to(tl.int32), 1)  # NaN is
    grad_there = inside & (alive > 0)[:, None]
    g = tl.load(grad_row + first + offset, mask=grad_there, other=0.0).to(tl.float32)
    return p, g, offset, inside


@triton.jit
def backward(
    p_ptr, grad_ptr, out_ptr, gap_ptr, gap, n_units, p_units, grad_units, out_units,
    KIND: tl.constexpr, BY_ROW: tl.constexpr, PIECES: tl.constexpr, SUB: tl.constexpr,
    UNIT: tl.constexpr, FITS: tl.constexpr,
):  # fmt: skip
    """dz = s (dp - <s, dp> / sum s) with s = p^(2 - alpha) on the support."""
    row = tl.program_id(0).to(tl.int64)
    gap = gap_of(gap, gap_ptr, row, BY_ROW)
    n_cols = n_units * UNIT
    p_row = p_ptr + row * (p_units * UNIT)
    grad_row = grad_ptr + row * (grad_units * UNIT)
    out_row = out_ptr + row * (out_units * UNIT)
    dtype = out_row.dtype.element_ty
    size: tl.constexpr = PIECES * SUB
    if FITS:
        p, g, offset, inside = support_tile(p_row, grad_row, 0, n_cols, PIECES, SUB)
        s = sensitivity(p, gap, KIND)
        dot, total = sum2(s * g, s)
        dz = s * (g - dot / tl.maximum(total, 0.5))
        tl.store(out_row + offset, tl.where(p == p, dz, p).to(dtype), mask=inside)
    else:
        dots = tl.zeros((PIECES, SUB), tl.float32)
        totals = tl.zeros((PIECES, SUB), tl.float32)
        for first in tl.range(0, n_cols, size):
            p, g, _, _ = support_tile(p_row, grad_row, first, n_cols, PIECES, SUB)
            s = sensitivity(p, gap, KIND)
            dots += s * g
            totals += s
        dot, total = sum2(dots, totals)
        mean = dot / tl.maximum(total, 0.5)
        for first in tl.range(0, n_cols, size):
            p, g, offset, inside = support_tile(p_row, grad_row, first, n_cols, PIECES, SUB)
            dz = sensitivity(p, gap, KIND) * (g - mean)
            tl.store(out_row + first + offset, tl.where(p == p, dz, p).to(dtype), mask=inside)
