"""The Fenchel-Young loss of rows of scores, p.z + H(p) - z_y, and its gradient grad (p - e_y)."""

import triton
import triton.language as tl

from .rows import active_tile, fill, solve_row
from .solve import INF, NAN, entropy, entropy_term, gap_of, newton, sum2, terms


@triton.jit
def support_sums(
    z_row, active_ptr, n_active, largest, theta, low, norm, n_cols, gap, column_ptr, value_ptr,
    capacity, KIND: tl.constexpr, AT_ONCE: tl.constexpr, SUB: tl.constexpr,
):  # fmt: skip
    """p.s, what the entropy is made of, and the size of the support, whose entries are kept."""
    dots = tl.zeros((AT_ONCE, SUB), tl.float32)
    powers = tl.zeros((AT_ONCE, SUB), tl.float32)
    support = 0
    for i in tl.range(0, n_active, AT_ONCE):
        s, cols, _ = active_tile(z_row, active_ptr, i, n_active, largest, n_cols, AT_ONCE, SUB)
        _, p = terms(s, theta, low, gap, KIND)
        p = p / norm
        dots += tl.where(p > 0, p * s, 0.0)
        powers += entropy_term(p, gap, KIND)
        alive = tl.ravel((p > 0).to(tl.int32))
        place = support + tl.cumsum(alive, 0) - 1
        keep = (alive > 0) & (place < capacity)
        tl.store(column_ptr + place, tl.ravel(cols), mask=keep)
        tl.store(value_ptr + place, tl.ravel(p), mask=keep)
        support += tl.sum(alive)
    dot, power = sum2(dots, powers)
    return dot, power, support


@triton.jit
def loss_forward(
    z_ptr, target_ptr, maxima_ptr, active_ptr, gap_ptr, loss_ptr, support_ptr, prob_ptr,
    correct_ptr, theta_ptr, largest_ptr, kept_ptr, column_ptr, value_ptr, gap, n_units, z_units,
    scratch, capacity,
    KIND: tl.constexpr, BY_ROW: tl.constexpr, BLOCK: tl.constexpr, SUB: tl.constexpr,
    PIECES: tl.constexpr, AT_ONCE: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """A row's loss, what is logged of it, its threshold, and its support if it has room."""
    row = tl.program_id(0).to(tl.int64)
    gap = gap_of(gap, gap_ptr, row, BY_ROW)
    n_cols = n_units * UNIT
    z_row = z_ptr + row * (z_units * UNIT)
    maxima_ptr += row * scratch
    active_ptr += row * scratch
    y = tl.load(target_ptr + row)
    loss = 0.0
    support = 0
    prob = 0.0
    theta = INF
    largest = -INF
    correct = False
    if y >= 0:
        largest, theta, low, norm, n_active = solve_row(
            z_row, z_row, maxima_ptr, active_ptr, n_cols, gap,
            False, False, KIND, BLOCK, SUB, PIECES, AT_ONCE,
        )  # fmt: skip
        dot, power, support = support_sums(
            z_row, active_ptr, n_active, largest, theta, low, norm, n_cols, gap,
            column_ptr + row * capacity, value_ptr + row * capacity, capacity, KIND, AT_ONCE, SUB,
        )  # fmt: skip
        s_y = tl.load(z_row + y).to(tl.float32) - largest
        _, prob = terms(s_y, theta, low, gap, KIND)
        prob = prob / norm
        loss = tl.maximum(dot + entropy(power, gap, KIND) - s_y, 0.0)  # rounding may cross 0
        correct = (s_y >= 0) & (largest > -INF)
        if largest == -INF:
            loss = 0.0
            prob = 0.0
            theta = INF
        if (largest == INF) | (largest != largest):
            loss = NAN
            prob = NAN
            theta = NAN
    tl.store(loss_ptr + row, loss)
    tl.store(support_ptr + row, support)
    tl.store(prob_ptr + row, prob)
    tl.store(correct_ptr + row, correct)
    tl.store(theta_ptr + row, theta)
    tl.store(largest_ptr + row, largest)
    tl.store(kept_ptr + row, tl.where(support <= capacity, support, -1))


@triton.jit
def sums_of_row(z_row, largest, theta, low, n_cols, gap, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """The sums of ``terms`` over a whole row."""
    slopes = tl.zeros((BLOCK,), tl.float32)
    totals = tl.zeros((BLOCK,), tl.float32)
    offset = tl.arange(0, BLOCK)
    for first in tl.range(0, n_cols, BLOCK):
        z = tl.load(z_row + first + offset, mask=offset < n_cols - first, other=-INF)
        slope, total = terms(z.to(tl.float32) - largest, theta, low, gap, KIND)
        slopes += slope
        totals += total
    return sum2(slopes, totals)


@triton.jit
def loss_backward(
    z_ptr, target_ptr, gap_ptr, theta_ptr, largest_ptr, kept_ptr, column_ptr, value_ptr, grad_ptr,
    out_ptr, gap, n_units, z_units, out_units, capacity,
    KIND: tl.constexpr, BY_ROW: tl.constexpr, BLOCK: tl.constexpr, UNIT: tl.constexpr,
    KEPT: tl.constexpr,
):  # fmt: skip
    """Zeros and the kept entries, without a look at the scores; a long support from z again."""
    row = tl.program_id(0).to(tl.int64)
    gap = gap_of(gap, gap_ptr, row, BY_ROW)
    n_cols = n_units * UNIT
    z_row = z_ptr + row * (z_units * UNIT)
    out_row = out_ptr + row * (out_units * UNIT)
    dtype = out_row.dtype.element_ty
    y = tl.load(target_ptr + row)
    theta = tl.load(theta_ptr + row)
    largest = tl.load(largest_ptr + row)
    n_kept = tl.load(kept_ptr + row)
    grad = tl.load(grad_ptr + row).to(tl.float32)
    if n_kept < 0:
        slope, total = sums_of_row(z_row, largest, theta, 0.0, n_cols, gap, KIND, BLOCK)
        low = newton(slope, total, gap, KIND)
        norm = 1.0
        if KIND == 0:
            slope, norm = sums_of_row(z_row, largest, theta, low, n_cols, gap, KIND, BLOCK)
        offset = tl.arange(0, BLOCK)
        for first in tl.range(0, n_cols, BLOCK):
            inside = offset < n_cols - first
            z = tl.load(z_row + first + offset, mask=inside, other=-INF).to(tl.float32)
            _slope, p = terms(z - largest, theta, low, gap, KIND)
            gold = (first + offset == y).to(tl.float32)
            tl.store(out_row + first + offset, (grad * (p / norm - gold)).to(dtype), mask=inside)
    else:
        fill(out_row, tl.where(theta != theta, NAN, 0.0), n_cols, BLOCK)
        if n_kept > 0:
            tl.debug_barrier()
            k = tl.arange(0, KEPT)
            there = k < n_kept
            cols = tl.load(column_ptr + row * capacity + k, mask=there, other=-1)
            p = tl.load(value_ptr + row * capacity + k, mask=there, other=0.0)
            gold = (cols == y).to(tl.float32)
            tl.store(out_row + cols, (grad * (p - gold)).to(dtype), mask=there)
            if tl.max(gold, 0) == 0:
                tl.store(out_row + y, (-grad).to(dtype))
