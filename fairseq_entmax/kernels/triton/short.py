"""alpha-entmax of short rows, as attention has them: a program solves a tile of rows at once."""

import triton
import triton.language as tl

from .rows import written
from .solve import (
    INF,
    NAN,
    STEPS,
    TINY,
    finite_or_zero,
    nan_max,
    newton,
    sensitivity,
    start,
    terms,
    unsettled,
)


@triton.jit
def gaps_of(gap, gap_ptr, row, n_rows, BY_ROW: tl.constexpr, ROWS: tl.constexpr):
    """alpha - 1 of every row of the tile, (ROWS,)."""
    if BY_ROW:
        return tl.load(gap_ptr + row, mask=row < n_rows, other=0.5)
    else:
        return tl.zeros((ROWS,), tl.float32) + gap


@triton.jit
def short_forward(
    z_ptr, out_ptr, gap_ptr, gap, n_rows, n_cols, z_stride, out_stride,
    KIND: tl.constexpr, BY_ROW: tl.constexpr, LOG: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The loop ends when every row of the tile has settled; dead and broken ones have at once."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK)
    inside = (row < n_rows)[:, None] & (cols < n_cols)[None, :]
    at = row[:, None] * z_stride + cols[None, :]
    z = tl.load(z_ptr + at, mask=inside, other=-INF).to(tl.float32)
    gaps = gaps_of(gap, gap_ptr, row, n_rows, BY_ROW, ROWS)
    wide = gaps[:, None]
    largest = tl.reduce(z, 1, nan_max)
    s = z - finite_or_zero(largest)[:, None]
    theta = tl.zeros((ROWS,), tl.float32) + start(KIND)
    moving = 1
    i = 0
    while (moving > 0) & (i < STEPS):
        slope, total = terms(s, theta[:, None], 0.0, wide, KIND)
        step = newton(tl.sum(slope, 1), tl.sum(total, 1), gaps, KIND)
        theta += tl.where(step == step, step, 0.0)
        moving = tl.max(unsettled(step, theta, KIND).to(tl.int32), 0)
        i += 1
    slope, total = terms(s, theta[:, None], 0.0, wide, KIND)
    low = newton(tl.sum(slope, 1), tl.sum(total, 1), gaps, KIND)
    _, p = terms(s, theta[:, None], low[:, None], wide, KIND)
    if KIND == 0:
        p = p / tl.maximum(tl.sum(p, 1), TINY)[:, None]
    p = tl.where((largest < INF)[:, None], p, NAN)
    p = tl.where((largest == -INF)[:, None], 0.0, p)
    p = written(p, LOG).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row[:, None] * out_stride + cols[None, :], p, mask=inside)


@triton.jit
def short_backward(
    p_ptr, grad_ptr, out_ptr, gap_ptr, gap, n_rows, n_cols, p_stride, grad_stride, out_stride,
    KIND: tl.constexpr, BY_ROW: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dz = s (dp - <s, dp> / sum s) with s = p^(2 - alpha) on the support."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK)
    inside = (row < n_rows)[:, None] & (cols < n_cols)[None, :]
    p_at = row[:, None] * p_stride + cols[None, :]
    grad_at = row[:, None] * grad_stride + cols[None, :]
    p = tl.load(p_ptr + p_at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad_ptr + grad_at, mask=inside, other=0.0).to(tl.float32)
    s = sensitivity(p, gaps_of(gap, gap_ptr, row, n_rows, BY_ROW, ROWS)[:, None], KIND)
    mean = tl.sum(s * g, 1) / tl.maximum(tl.sum(s, 1), 0.5)
    dz = s * (g - mean[:, None])
    dz = tl.where(p == p, dz, p).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row[:, None] * out_stride + cols[None, :], dz, mask=inside)
