"""Launches the kernels for tensors on a GPU; Triton itself is imported with the first of them."""

import importlib
from typing import Any, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from ..contract import NEAR_ONE, SolvedRows, has_storage
from ..dense_layer import DenseLayer
from .machine import TYPES, kind_of, serves

_SHORT_ROW = 512
_TILE = 2048  # entries of a tile of short rows
_RESIDENT_ROW = 8192
_LONGEST_ROW = 1 << 20  # one program holds the maxima of its pieces
_BLOCK, _SUB, _AT_ONCE = 4096, 128, 16
_WARPS = 8
_CAPACITY = 256  # kept entries of a row: one load in the backward pass


def takes(z: Tensor) -> bool:
    """Scores in float32, bfloat16 or float16 on a GPU that Triton serves; alpha <= 2."""
    return (
        z.is_cuda
        and z.dtype in TYPES
        and z.dim() == 2
        and 0 < z.shape[1] <= _LONGEST_ROW
        and has_storage(z)
        and serves(z.device)
    )


def _kernel(module: str, name: str) -> Any:
    """A kernel of this package, imported when it is wanted."""
    return getattr(importlib.import_module(f"{__package__}.{module}"), name)


class _Exponent(NamedTuple):
    """alpha - 1 as the kernels take it."""

    kind: int
    constant: float
    by_row: Optional[Tensor]  # (N,), float32

    def arguments(self, like: Tensor) -> Tuple[Tensor, float]:
        """Pointer and number; the pointer of a constant is read by no one."""
        return like if self.by_row is None else self.by_row, self.constant

    def flags(self) -> Any:
        """The constants of a compilation."""
        return {"KIND": self.kind, "BY_ROW": self.by_row is not None}


def _exponent(alpha: Tensor, closed: Optional[float], n_rows: int) -> _Exponent:
    if closed is not None:
        return _Exponent(kind_of(closed), closed - 1, None)
    if alpha.device.type == "cpu" and alpha.numel() == 1:
        return _Exponent(kind_of(None), max(float(alpha) - 1, NEAR_ONE), None)
    gaps = (alpha - 1).to(torch.float32).clamp(min=NEAR_ONE)
    return _Exponent(kind_of(None), 0.0, gaps.expand(n_rows, 1).reshape(n_rows))


def _power_of_two(n: int) -> int:
    return 1 << max(0, (n - 1).bit_length())


def _dense_columns(z: Tensor) -> Tensor:
    return z if z.stride(1) == 1 or z.shape[1] == 1 else z.contiguous()


def _unit(*matrices: Tensor) -> int:
    """What columns and strides are multiples of, for all of them."""
    sizes = [size for m in matrices for size in (m.shape[1], m.stride(0))]
    return 8 if all(size % 8 == 0 for size in sizes) else 1


def _scratch(z: Tensor) -> Tuple[Tensor, Tensor, int]:
    """The maxima and the list of the pieces of every row, and the stride of both."""
    n_pieces = -(-z.shape[1] // _SUB)
    stride = -(-n_pieces // 16) * 16
    maxima = torch.empty((z.shape[0], stride), dtype=torch.float32, device=z.device)
    return maxima, torch.empty_like(maxima, dtype=torch.int32), stride


def _streaming(z: Tensor) -> Any:
    """The constants of kernels that read a row piece by piece."""
    pieces = _power_of_two(-(-z.shape[1] // _SUB))
    return {"BLOCK": _BLOCK, "SUB": _SUB, "PIECES": pieces, "AT_ONCE": _AT_ONCE}


def _tile(n_cols: int) -> Any:
    """The constants of kernels that hold several rows."""
    block = max(16, _power_of_two(n_cols))
    return {"ROWS": min(64, max(4, _TILE // block)), "BLOCK": block}


def _forward(z: Tensor, alpha: Tensor, closed: Optional[float], log: bool) -> Tensor:
    z = _dense_columns(z)
    n, v = z.shape
    out = torch.empty((n, v), dtype=z.dtype, device=z.device)
    exponent = _exponent(alpha, closed, n)
    flags = {**exponent.flags(), "LOG": log}
    gap = exponent.arguments(z)
    if n == 0:
        return out
    if v <= _SHORT_ROW:
        tile = _tile(v)
        grid = (-(-n // tile["ROWS"]),)
        strides = (z.stride(0), out.stride(0))
        _kernel("short", "short_forward")[grid](z, out, *gap, n, v, *strides, **flags, **tile)
        return out
    unit = _unit(z, out)
    sizes = (v // unit, z.stride(0) // unit, out.stride(0) // unit)
    if v <= _RESIDENT_ROW:
        block = _power_of_two(v)
        warps = 4 if block <= 1024 else _WARPS
        constants = {"BLOCK": block, "LANES": 32 * warps, "VEC": 16 // z.element_size()}
        _kernel("rows", "resident_forward")[(n,)](
            *(z, out, *gap, *sizes), **flags, **constants, UNIT=unit, num_warps=warps
        )
        return out
    maxima, active, stride = _scratch(z)
    _kernel("rows", "streamed_forward")[(n,)](
        *(z, out, maxima, active, *gap, *sizes, stride),
        **flags,
        **_streaming(z),
        UNIT=unit,
        num_warps=_WARPS,
    )
    return out


def entmax(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.entmax`."""
    return _forward(z, alpha, closed, log=False)


def log_entmax(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.log_entmax`."""
    return _forward(z, alpha, closed, log=True)


def next_token_layer(
    weight: Tensor, bias: Optional[Tensor], alpha: float, temperature: float
) -> DenseLayer:
    """As :meth:`.RowKernels.next_token_layer`."""
    return DenseLayer(log_entmax, weight, bias, alpha, temperature)


def entmax_backward(probs: Tensor, grad: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.entmax_backward`."""
    probs, grad = _dense_columns(probs), _dense_columns(grad)
    n, v = probs.shape
    out = torch.empty((n, v), dtype=probs.dtype, device=probs.device)
    exponent = _exponent(alpha, closed, n)
    gap = exponent.arguments(probs)
    if n == 0:
        return out
    if v <= _SHORT_ROW:
        tile = _tile(v)
        grid = (-(-n // tile["ROWS"]),)
        strides = (probs.stride(0), grad.stride(0), out.stride(0))
        _kernel("short", "short_backward")[grid](
            *(probs, grad, out, *gap, n, v, *strides), **exponent.flags(), **tile
        )
        return out
    unit = _unit(probs, grad, out)
    sizes = (v // unit, *(m.stride(0) // unit for m in (probs, grad, out)))
    fits = v <= _RESIDENT_ROW
    pieces = _power_of_two(-(-v // _SUB)) if fits else _BLOCK // _SUB
    _kernel("rows", "backward")[(n,)](
        *(probs, grad, out, *gap, *sizes),
        **exponent.flags(),
        **{"PIECES": pieces, "SUB": _SUB, "UNIT": unit, "FITS": fits},
        num_warps=_WARPS,
    )
    return out


def solve_loss(
    z: Tensor, target: Tensor, alpha: Tensor, closed: Optional[float], capacity: int
) -> SolvedRows:
    """As :meth:`.RowKernels.solve_loss`; at most 256 entries of a row are kept."""
    z = _dense_columns(z)
    n, v = z.shape
    capacity = min(capacity, _CAPACITY)

    def empty(dtype: torch.dtype, *more: int) -> Tensor:
        return torch.empty((n, *more), dtype=dtype, device=z.device)

    wide, whole = torch.float32, torch.int32
    solved = SolvedRows(
        target=target,
        n_kept=empty(whole),
        columns=empty(whole, capacity),
        values=empty(wide, capacity),
        loss=empty(wide),
        support_size=empty(torch.int64),
        target_probs=empty(wide),
        correct=empty(torch.bool),
        tau=empty(wide),
        largest=empty(wide),
    )
    if n == 0:
        return solved
    unit = _unit(z)
    maxima, active, stride = _scratch(z)
    exponent = _exponent(alpha, closed, n)
    pointer, gap = exponent.arguments(z)
    numbers = (gap, v // unit, z.stride(0) // unit, stride, capacity)
    rows = (solved.loss, solved.support_size, solved.target_probs, solved.correct, solved.tau)
    _kernel("loss", "loss_forward")[(n,)](
        *(z, target, maxima, active, pointer, *rows, solved.largest),
        *(solved.n_kept, solved.columns, solved.values, *numbers),
        **exponent.flags(),
        **_streaming(z),
        UNIT=unit,
        num_warps=_WARPS,
    )
    return solved


def loss_backward(
    z: Tensor, alpha: Tensor, closed: Optional[float], solved: SolvedRows, grad: Tensor
) -> Tensor:
    """As :meth:`.RowKernels.loss_backward`."""
    z = _dense_columns(z)
    n, v = z.shape
    out = torch.empty((n, v), dtype=z.dtype, device=z.device)
    if n == 0:
        return out
    unit = _unit(z, out)
    exponent = _exponent(alpha, closed, n)
    pointer, gap = exponent.arguments(z)
    capacity = solved.columns.shape[1]
    sizes = (v // unit, z.stride(0) // unit, out.stride(0) // unit, capacity)
    kept: List[Tensor] = [solved.tau, solved.largest, solved.n_kept, solved.columns, solved.values]
    _kernel("loss", "loss_backward")[(n,)](
        *(z, solved.target, pointer, *kept, grad.contiguous(), out, gap, *sizes),
        **exponent.flags(),
        **{"BLOCK": _BLOCK, "UNIT": unit, "KEPT": _power_of_two(max(1, capacity))},
        num_warps=_WARPS,
    )
    return out
