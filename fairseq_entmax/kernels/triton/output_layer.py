"""Launches the kernels of an output layer: losses without scores in memory, and their gradients."""

import math
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from ..contract import SolvedRows, SparseRows
from .machine import kind_of

_CAPACITY = 1024  # candidates of a row; 8 bytes each
KEPT = 256  # nonzero probabilities of a row
_COUNTER_APART = 8  # each row's in memory of its own: 32 bytes
_SOLVED_AT_ONCE = 1  # rows of a program
_ROWS_AT_ONCE = 8192  # 64 MB of candidates
_PROGRAMS = 256  # that a sweep asks for: two for each multiprocessor of a large GPU
_MOST_SPLITS = 8  # each begins with a bound of its own


class Tiles(NamedTuple):
    """How a sweep cuts rows, classes and features; compiled without spills, not timed."""

    rows: int
    classes: int
    depth: int
    warps: int
    stages: int
    precision: str


def tiles_for(dtype: torch.dtype) -> Tiles:
    """The tiles for features and weights of such a type."""
    if dtype == torch.float32:
        return Tiles(64, 64, 32, 8, 3, "tf32x3")
    return Tiles(64, 64, 64, 8, 3, "tf32")


class Candidates(NamedTuple):
    """Scores of N rows that may lie in their supports."""

    n_found: Tensor  # int32, (N,); more than the capacity: some are missing
    pairs: Tensor  # int64, (N, capacity): column << 32 | bits of the score
    gold: Tensor  # the target's score


def sweep(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    target: Optional[Tensor],
    alpha: float,
    scale: float = 1.0,
) -> Candidates:
    """The candidates of scale (W x + b); -1 in target: the row does not count."""
    from .sweep import sweep_classes

    n_rows, n_classes = len(x), len(weight)
    tiles = tiles_for(x.dtype)
    found = Candidates(
        torch.zeros(n_rows, _COUNTER_APART, dtype=torch.int32, device=x.device)[:, 0],
        torch.empty(n_rows, _CAPACITY, dtype=torch.int64, device=x.device),
        torch.empty(n_rows, device=x.device),
    )
    blocks = -(-n_rows // tiles.rows)
    splits = min(_MOST_SPLITS, -(-_PROGRAMS // blocks), -(-n_classes // tiles.classes))
    sweep_classes[(blocks, splits)](
        *(x, weight, x if bias is None else bias, x if target is None else target, *found),
        *(alpha - 1, scale, n_rows, n_classes, x.shape[1]),
        *(found.n_found.stride(0), x.stride(0), weight.stride(0)),
        KIND=kind_of(alpha),
        CAP=_CAPACITY,
        ROWS=tiles.rows,
        COLS=tiles.classes,
        DEPTH=tiles.depth,
        BIASED=bias is not None,
        PRECISION=tiles.precision,
        TARGETED=target is not None,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return found


def _solve(found: Candidates, target: Optional[Tensor], alpha: float) -> SolvedRows:
    from .candidates import solve_candidates

    count, device = found.n_found.contiguous(), found.n_found.device
    n = len(count)
    solved = SolvedRows(
        target=count if target is None else target,
        n_kept=torch.empty_like(count),
        columns=torch.empty(n, KEPT, dtype=torch.int32, device=device),
        values=torch.empty(n, KEPT, device=device),
        loss=torch.empty(n, device=device),
        support_size=torch.empty_like(count),
        target_probs=torch.empty(n, device=device),
        correct=torch.empty(n, dtype=torch.bool, device=device),
        tau=torch.empty(n, device=device),
        largest=torch.empty(n, device=device),
    )
    solve_candidates[(-(-n // _SOLVED_AT_ONCE),)](
        *(count, found.pairs, solved.target, found.gold, *solved[1:], alpha - 1, n),
        KIND=kind_of(alpha),
        CAP=_CAPACITY,
        KEPT=KEPT,
        ROWS=_SOLVED_AT_ONCE,
        TARGETED=target is not None,
        num_warps=4,
    )
    return solved


def solve_layer(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], target: Optional[Tensor], alpha: float,
    scale: float = 1.0,
) -> SolvedRows:  # fmt: skip
    """As :meth:`.DeviceLayerKernels.solve_layer`."""
    x, weight = _by_rows(x), _by_rows(weight)
    bias = None if bias is None else bias.contiguous()
    target = None if target is None else target.contiguous()
    parts = []
    for i in range(0, max(1, len(x)), _ROWS_AT_ONCE):
        rows = slice(i, i + _ROWS_AT_ONCE)
        y = None if target is None else target[rows]
        parts.append(_solve(sweep(x[rows], weight, bias, y, alpha, scale), y, alpha))
    return parts[0] if len(parts) == 1 else SolvedRows(*map(torch.cat, zip(*parts)))


def _by_rows(matrix: Tensor) -> Tensor:
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


def pack(solved: SolvedRows) -> SparseRows:
    """As :meth:`.SparseGradientKernels.pack`; rows that kept nothing are empty."""
    target = solved.target.unsqueeze(1)
    place = torch.arange(solved.columns.shape[1], device=target.device)
    kept = place < solved.n_kept.unsqueeze(1)
    hit = kept & (solved.columns == target)
    counted = (solved.n_kept >= 0) & (solved.tau < math.inf)
    missed = counted & ~hit.any(1)
    entries = torch.cat([kept & counted.unsqueeze(1), missed.unsqueeze(1)], 1)
    columns = torch.cat([solved.columns, target.to(torch.int32)], 1)
    values = torch.cat([solved.values - hit.to(torch.float32), -torch.ones_like(target).float()], 1)
    return SparseRows(_starts(entries.sum(1)), columns[entries], values[entries])


def _starts(sizes: Tensor) -> Tensor:
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def _multiply(
    g: SparseRows, dense: Tensor, out: Tensor, sums: Optional[Tensor], accumulate: bool
) -> None:
    from .products import multiply_rows

    n_rows, dim = out.shape
    block = min(1024, 1 << (dim - 1).bit_length())
    dense = _by_rows(dense)
    multiply_rows[(n_rows, -(-dim // block))](
        *(g.start, g.column, g.value, dense, out, out if sums is None else sums),
        *(dim, dense.stride(0), out.stride(0)),
        DIM=block,
        AT_ONCE=4,
        ACCUMULATE=accumulate,
        SUMMED=sums is not None,
        num_warps=4,
    )


def _entry_rows(g: SparseRows) -> Tensor:
    """The row of each entry."""
    sizes = g.start[1:] - g.start[:-1]
    rows = torch.arange(len(sizes), device=sizes.device)
    return rows.repeat_interleave(sizes, output_size=len(g.column))


def grad_features(g: SparseRows, scale: Tensor, weight: Tensor) -> Tensor:
    """As :meth:`.SparseGradientKernels.grad_features`."""
    scaled = g._replace(value=g.value * scale[_entry_rows(g)])
    out = weight.new_empty(len(g.start) - 1, weight.shape[1])
    _multiply(scaled, weight, out, None, False)
    return out


def grad_weight(
    g: SparseRows,
    scale: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    *,
    accumulate: bool,
) -> None:
    """As :meth:`.SparseGradientKernels.grad_weight`; bias is float32."""
    rows = _entry_rows(g)
    columns, order = g.column.sort(stable=True)
    classes = torch.arange(len(weight) + 1, dtype=columns.dtype, device=columns.device)
    transposed = SparseRows(
        torch.searchsorted(columns, classes),
        rows[order],
        (g.value * scale[rows])[order],
    )
    _multiply(transposed, features, weight, bias, accumulate)
