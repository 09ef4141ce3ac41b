"""One sweep over the classes of an output layer: scores that may lie in the support of their row.

A threshold of some of a row's scores is a lower bound of the threshold of all. The bound is in
units of scores: z above it may have p > 0. It begins at the target's score less 1 / (alpha - 1) and
rises with the maxima of the tiles seen so far.
"""

import triton
import triton.language as tl

from .solve import INF


@triton.jit
def _bound_terms(m, base, gap, KIND: tl.constexpr):
    """d^(q-1) and d^q of a score against the threshold ``base``."""
    d = tl.maximum(gap * (m - base), 0.0)
    if KIND == 15:
        return d, d * d
    elif KIND == 20:
        return (d > 0).to(tl.float32), d
    else:
        p = tl.where(d > 0, tl.exp2(tl.log2(tl.maximum(d, 1e-37)) / gap), 0.0)
        return tl.where(d > 0, p / tl.maximum(d, 1e-37), 0.0), p


@triton.jit
def _raised(base, slope, total, gap, KIND: tl.constexpr):
    """One Newton step from base for what has been seen, which does not overshoot; >= base."""
    if KIND == 15:
        norm = tl.sqrt(total)
        step = (norm - 1.0) * norm / tl.maximum(slope, 1e-30)
    elif KIND == 20:
        step = (total - 1.0) / tl.maximum(slope, 1.0)
    else:
        norm = tl.exp2(gap * tl.log2(tl.maximum(total, 1e-37)))
        step = (1.0 - 1.0 / tl.maximum(norm, 1e-30)) * total / tl.maximum(slope, 1e-30)
    return base + tl.where(total > 1.0, step, 0.0) / gap


@triton.jit
def _scores(
    x_ptr, w_ptr, b_ptr, rows, cols, n_rows, n_classes, dim, x_row, w_row, scale,
    ROWS: tl.constexpr, COLS: tl.constexpr, DEPTH: tl.constexpr,
    BIASED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of scale (x W^T + b); -inf beyond the classes."""
    k = tl.arange(0, DEPTH)
    x_at = x_ptr + rows.to(tl.int64)[:, None] * x_row + k[None, :]
    w_at = w_ptr + cols.to(tl.int64)[None, :] * w_row + k[:, None]
    z = tl.zeros((ROWS, COLS), tl.float32)
    for first in tl.range(0, dim, DEPTH):
        left = k < dim - first
        x = tl.load(x_at + first, mask=(rows < n_rows)[:, None] & left[None, :], other=0.0)
        w = tl.load(w_at + first, mask=(cols < n_classes)[None, :] & left[:, None], other=0.0)
        z = tl.dot(x, w, z, input_precision=PRECISION)
    if BIASED:
        z += tl.load(b_ptr + cols, mask=cols < n_classes, other=0.0).to(tl.float32)[None, :]
    return tl.where((cols < n_classes)[None, :], z * scale, -INF)


@triton.jit
def _target_scores(
    x_ptr, w_ptr, b_ptr, rows, y, counted, dim, x_row, w_row,
    ROWS: tl.constexpr, DEPTH: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """W_y x + b_y of each row, and the sum of its products' sizes, which bounds its rounding."""
    k = tl.arange(0, DEPTH)
    gold = tl.zeros((ROWS,), tl.float32)
    size = tl.zeros((ROWS,), tl.float32)
    y_row = tl.where(counted, y, 0).to(tl.int64)
    for first in tl.range(0, dim, DEPTH):
        inside = counted[:, None] & (k < dim - first)[None, :]
        at = first + k[None, :]
        x = tl.load(x_ptr + rows.to(tl.int64)[:, None] * x_row + at, mask=inside, other=0.0)
        w = tl.load(w_ptr + y_row[:, None] * w_row + at, mask=inside, other=0.0)
        product = x.to(tl.float32) * w.to(tl.float32)
        gold += tl.sum(product, 1)
        size += tl.sum(tl.abs(product), 1)
    if BIASED:
        bias = tl.load(b_ptr + y_row, mask=counted, other=0.0).to(tl.float32)
        gold += bias
        size += tl.abs(bias)
    return gold, size


@triton.jit
def _collect(
    z, edge, rows, cols, counted, n_classes, count_ptr, count_row, pair_ptr,
    CAP: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write the entries above the edge, also +inf and NaN, into their row's bucket."""
    alive = (z > edge[:, None]) | (z == INF) | (z != z)
    alive = alive & counted[:, None] & (cols < n_classes)[None, :]
    if tl.max(tl.max(alive.to(tl.int32), 1), 0) > 0:
        counter = tl.broadcast_to((count_ptr + rows * count_row)[:, None], (ROWS, COLS))
        place = tl.atomic_add(counter, 1, mask=alive, sem="relaxed")
        column = tl.broadcast_to(cols[None, :], (ROWS, COLS)).to(tl.int64) << 32
        pair = column | (z.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF)
        at = pair_ptr + (rows.to(tl.int64) * CAP)[:, None] + place
        tl.store(at, pair, mask=alive & (place < CAP))


@triton.jit
def sweep_classes(
    x_ptr, w_ptr, b_ptr, target_ptr, count_ptr, pair_ptr, gold_ptr,
    gap, scale, n_rows, n_classes, dim, count_row, x_row, w_row,
    KIND: tl.constexpr, CAP: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    DEPTH: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr, TARGETED: tl.constexpr,
):  # fmt: skip
    """Candidates of a block of rows among every n-th tile of classes, n the second grid size.

    A candidate is one word, column << 32 | bits of its score. count (N,) must be zeros; more than
    CAP: some are missing. Rows of target -1 have none; without TARGETED there are no targets.
    """
    split = tl.program_id(1)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    reach = 1.0 / gap
    counted = rows < n_rows
    base = tl.full((ROWS,), -INF, tl.float32)
    margin = tl.full((ROWS,), 0.0, tl.float32)
    if TARGETED:
        y = tl.load(target_ptr + rows, mask=rows < n_rows, other=-1)
        counted = y >= 0
        gold, size = _target_scores(
            x_ptr, w_ptr, b_ptr, rows, y, counted, dim, x_row, w_row, ROWS, DEPTH, BIASED
        )
        if split == 0:
            tl.store(gold_ptr + rows, scale * gold, mask=rows < n_rows)
        # the tiles add the same products in another order
        margin = 2e-6 * (scale * size + reach)
        base = scale * gold - reach - margin
        base = tl.where(base == base, base, -INF)
    edge = base
    slope = tl.zeros((ROWS,), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    seen = 1
    again = 4
    for tile in tl.range(split, tl.cdiv(n_classes, COLS), tl.num_programs(1)):
        cols = tile * COLS + tl.arange(0, COLS)
        z = _scores(
            x_ptr, w_ptr, b_ptr, rows, cols, n_rows, n_classes, dim, x_row, w_row, scale,
            ROWS, COLS, DEPTH, BIASED, PRECISION,
        )  # fmt: skip
        m = tl.max(z, 1)
        rounding = margin + 1e-6 * (tl.abs(m) + reach)
        edge = tl.maximum(edge, m - reach - rounding)
        base = tl.where(total == 0.0, edge, base)
        s1, s2 = _bound_terms(m, base, gap, KIND)
        slope += s1
        total += s2
        edge = tl.maximum(edge, _raised(base, slope, total, gap, KIND) - rounding)
        if seen == again:  # the sums begin again from a better base: a subset is a bound as well
            slope = tl.zeros((ROWS,), tl.float32)
            total = tl.zeros((ROWS,), tl.float32)
            again = again * 2
        seen += 1
        _collect(
            z, edge, rows, cols, counted, n_classes, count_ptr, count_row, pair_ptr, CAP, ROWS, COLS
        )
