"""Rows of few candidates to their thresholds, losses and supports."""

import triton
import triton.language as tl

from .solve import INF, entropy, entropy_term, newton, start, terms, unsettled


@triton.jit
def _probabilities(s, gap, ROWS: tl.constexpr, KIND: tl.constexpr):
    """p of the scores s <= 0, and their threshold."""
    theta = tl.full((ROWS,), start(KIND), tl.float32)
    i = 0
    moving = 1
    while (moving > 0) & (i < 30):
        slope, total = terms(s, theta[:, None], 0.0, gap, KIND)
        step = newton(tl.sum(slope, 1), tl.sum(total, 1), gap, KIND)
        theta += step
        moving = tl.max(unsettled(step, theta, KIND).to(tl.int32), 0)
        i += 1
    slope, total = terms(s, theta[:, None], 0.0, gap, KIND)
    low = newton(tl.sum(slope, 1), tl.sum(total, 1), gap, KIND)
    slope, p = terms(s, theta[:, None], low[:, None], gap, KIND)
    if KIND == 0:
        p = p / tl.sum(p, 1)[:, None]
    return p, theta


@triton.jit
def _sorted_candidates(count, pair_ptr, rows, inside, ROWS: tl.constexpr, CAP: tl.constexpr):
    """Columns and scores in the order of the columns: atomics filled the buckets in any order, and
    sums must not depend on it.
    """
    k = tl.arange(0, CAP)
    here = inside[:, None] & (k[None, :] < count[:, None])
    nothing: tl.constexpr = 0x7FFFFFFFFF800000  # no column, -inf
    pairs = tl.load(pair_ptr + rows[:, None] * CAP + k[None, :], mask=here, other=nothing)
    key = tl.sort(pairs, 1)
    return (key >> 32).to(tl.int32), (key & 0xFFFFFFFF).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def solve_candidates(
    count_ptr, pair_ptr, target_ptr, gold_ptr,
    kept_ptr, column_ptr, value_ptr, loss_ptr, support_ptr, prob_ptr, correct_ptr, tau_ptr, max_ptr,
    gap, n_rows, KIND: tl.constexpr, CAP: tl.constexpr, KEPT: tl.constexpr,
    ROWS: tl.constexpr, TARGETED: tl.constexpr,
):  # fmt: skip
    """The fields of ``SolvedRows``; -1 entries kept: too many for this, or a broken row."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = rows < n_rows
    n = tl.load(count_ptr + rows, mask=inside, other=0)
    col, z = _sorted_candidates(n, pair_ptr, rows, inside, ROWS, CAP)
    broken = tl.max(((z == INF) | (z != z)).to(tl.int32), 1) > 0
    largest = tl.max(z, 1)
    p, theta = _probabilities(z - tl.where(largest == -INF, 0.0, largest)[:, None], gap, ROWS, KIND)
    alive = (p > 0) & (z > -INF)
    support = tl.sum(alive.to(tl.int32), 1)
    place = tl.cumsum(alive.to(tl.int32), 1) - 1
    at = rows[:, None] * KEPT + place
    tl.store(column_ptr + at, col, mask=alive & (place < KEPT))
    tl.store(value_ptr + at, p, mask=alive & (place < KEPT))
    lost = (n > CAP) | (support > KEPT) | broken
    tl.store(kept_ptr + rows, tl.where(lost, -1, support), mask=inside)
    tl.store(support_ptr + rows, support, mask=inside)
    if TARGETED:
        y = tl.load(target_ptr + rows, mask=inside, other=-1)
        counted = (y >= 0) & (largest != -INF)
        hit = col == y[:, None]
        found = tl.max(tl.where(hit, z, -INF), 1)
        gold = tl.load(gold_ptr + rows, mask=inside, other=0.0)
        gold = tl.where(found > -INF, found, gold)
        dot = tl.sum(p * tl.where(alive, z - largest[:, None], 0.0), 1)
        power = tl.sum(entropy_term(tl.where(alive, p, 0.0), gap, KIND), 1)
        loss = dot + entropy(power, gap, KIND) + (largest - gold)
        loss = tl.where(counted, tl.where(loss < 0, 0.0, loss), 0.0)  # rounding may cross 0
        tl.store(loss_ptr + rows, loss, mask=inside)
        prob = tl.sum(tl.where(alive & hit, p, 0.0), 1)
        tl.store(prob_ptr + rows, prob, mask=inside)
        tl.store(correct_ptr + rows, counted & (gold >= largest), mask=inside)
        tl.store(tau_ptr + rows, tl.where(counted, theta, INF), mask=inside)
        tl.store(max_ptr + rows, largest, mask=inside)
