"""A sparse matrix, compressed by rows, times a dense one."""

import triton
import triton.language as tl


@triton.jit
def multiply_rows(
    start_ptr, column_ptr, value_ptr, dense_ptr, out_ptr, sum_ptr, dim, dense_row, out_row,
    DIM: tl.constexpr, AT_ONCE: tl.constexpr, ACCUMULATE: tl.constexpr, SUMMED: tl.constexpr,
):  # fmt: skip
    """DIM columns of one row of the product, in the order of the entries; with SUMMED also the sum
    of the row's values. Rows without entries are zeros.
    """
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * DIM + tl.arange(0, DIM)
    inside = d < dim
    first = tl.load(start_ptr + row)
    last = tl.load(start_ptr + row + 1)
    acc = tl.zeros((DIM,), tl.float32)
    mass = 0.0
    for i in tl.range(first, last, AT_ONCE):
        k = i + tl.arange(0, AT_ONCE)
        column = tl.load(column_ptr + k, mask=k < last, other=0).to(tl.int64)
        value = tl.load(value_ptr + k, mask=k < last, other=0.0)
        at = dense_ptr + column[:, None] * dense_row + d[None, :]
        dense = tl.load(at, mask=(k < last)[:, None] & inside[None, :], other=0.0)
        acc += tl.sum(value[:, None] * dense.to(tl.float32), 0)
        mass += tl.sum(value)
    out = out_ptr + row * out_row + d
    if ACCUMULATE:
        acc += tl.load(out, mask=inside, other=0.0).to(tl.float32)
    tl.store(out, acc.to(out_ptr.dtype.element_ty), mask=inside)
    if SUMMED:
        if ACCUMULATE:
            mass += tl.load(sum_ptr + row)
        tl.store(sum_ptr + row, mass, mask=tl.program_id(1) == 0)
