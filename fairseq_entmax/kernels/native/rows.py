"""The row kernels of csrc/rows.c and short.c: the mapping, the loss, and their gradients."""

import ctypes
from typing import Any, Dict, Optional, Tuple

import torch
from torch import Tensor

from ..contract import NEAR_ONE, SolvedRows, has_storage
from .library import LossFields, call, library, pointer, threads

_TYPES: Dict[torch.dtype, int] = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_SHORT_ROW = 512
_FROM_FLOAT = 1.05  # alpha from which on float32 does for short rows and the gradient by alpha


def takes(z: Tensor) -> bool:
    """Scores in memory of a CPU, in float32, bfloat16 or float16, where the library was built."""
    return z.device.type == "cpu" and z.dtype in _TYPES and has_storage(z) and library() is not None


def _rows(z: Tensor) -> Tuple[Any, ...]:
    """z (N, V), its shape, and the distance of its rows, which have unit stride."""
    return (pointer(z), z.shape[0], z.shape[1], z.stride(0))


def _unit_stride(z: Tensor) -> Tensor:
    return z if z.stride(1) == 1 or z.shape[1] == 1 else z.contiguous()


def _exponents(alpha: Tensor) -> Tuple[Tensor, int]:
    """The exponents, none of them 1, and the distance between those of two rows."""
    if len(alpha) == 1 and alpha.item() >= 1 + NEAR_ONE:
        return alpha, 0
    alpha = alpha.clamp(min=1 + NEAR_ONE).contiguous()
    return alpha, int(len(alpha) > 1)


def entmax(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.entmax`."""
    z = _unit_stride(z)
    if z.shape[1] > _SHORT_ROW or (closed is None and not _float_is_enough(alpha)):
        return _forward(z, alpha, logarithm=False)
    probs = torch.empty_like(z, memory_format=torch.contiguous_format)
    alpha, step = _exponents(alpha)
    exponents = (_TYPES[z.dtype], pointer(alpha), step)
    call("entmax_short_forward", *_rows(z), *exponents, pointer(probs), threads(z.numel()))
    return probs


def _float_is_enough(alpha: Tensor) -> bool:
    """Whether errors of float32, divided by alpha - 1, are small; alpha may be (N, 1)."""
    return bool(_FROM_FLOAT <= alpha.min() <= alpha.max() <= 2)


def log_entmax(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.log_entmax`."""
    return _forward(_unit_stride(z), alpha, logarithm=True)


def _forward(z: Tensor, alpha: Tensor, logarithm: bool) -> Tensor:
    alpha, step = _exponents(alpha)
    out = torch.empty_like(z, memory_format=torch.contiguous_format)
    exponents = (_TYPES[z.dtype], pointer(alpha), step)
    call("entmax_forward", *_rows(z), *exponents, pointer(out), logarithm, threads(z.numel()))
    return out


def entmax_backward(probs: Tensor, grad: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """As :meth:`.RowKernels.entmax_backward`."""
    return _backward(probs, grad, alpha, None)


def entmax_backward_by_alpha(
    probs: Tensor, grad: Tensor, alpha: Tensor
) -> Optional[Tuple[Tensor, Tensor]]:
    """As :meth:`.AlphaKernels.entmax_backward_by_alpha`."""
    if probs.dtype != torch.float32 or not _float_is_enough(alpha):
        return None
    by_alpha = alpha.new_empty(len(probs), 1)
    return _backward(probs, grad, alpha, by_alpha), by_alpha


def _backward(probs: Tensor, grad: Tensor, alpha: Tensor, by_alpha: Optional[Tensor]) -> Tensor:
    probs, grad = probs.contiguous(), grad.to(probs.dtype).contiguous()
    alpha, step = _exponents(alpha)
    out = torch.empty_like(probs)
    shape = (probs.shape[0], probs.shape[1], _TYPES[probs.dtype])
    arguments = (*map(pointer, (probs, grad)), *shape, pointer(alpha), step)
    results = map(pointer, (out, by_alpha))
    call("entmax_backward", *arguments, *results, threads(out.numel()))
    return out


def empty_rows(target: Tensor, capacity: int) -> SolvedRows:
    """What the loss kernels write for every row."""
    n = len(target)
    return SolvedRows(
        target=target.contiguous(),
        n_kept=torch.empty(n, dtype=torch.int32),
        columns=torch.empty(n, capacity, dtype=torch.int32),
        values=torch.empty(n, capacity),
        loss=torch.empty(n, dtype=torch.float64),
        support_size=torch.empty(n, dtype=torch.int32),
        target_probs=torch.empty(n),
        correct=torch.empty(n, dtype=torch.bool),
        tau=torch.empty(n, dtype=torch.float64),
        largest=torch.empty(n),
    )


def fields(solved: SolvedRows) -> Any:
    """The addresses of solved rows, as the C functions take them."""
    pointers = {name: tensor.data_ptr() for name, tensor in solved._asdict().items()}
    return ctypes.byref(LossFields(capacity=solved.columns.shape[1], **pointers))


def solve_loss(
    z: Tensor, target: Tensor, alpha: Tensor, closed: Optional[float], capacity: int
) -> SolvedRows:
    """As :meth:`.RowKernels.solve_loss`."""
    z, solved = _unit_stride(z), empty_rows(target, capacity)
    alpha, step = _exponents(alpha)
    exponents = (_TYPES[z.dtype], pointer(alpha), step)
    call("entmax_loss_forward", *_rows(z), *exponents, fields(solved), threads(z.numel()))
    return solved


def loss_backward(
    z: Tensor, alpha: Tensor, closed: Optional[float], solved: SolvedRows, grad: Tensor
) -> Tensor:
    """As :meth:`.RowKernels.loss_backward`."""
    z, grad = _unit_stride(z), grad.float().contiguous()
    alpha, step = _exponents(alpha)
    out = torch.empty_like(z, memory_format=torch.contiguous_format)
    exponents = (_TYPES[z.dtype], pointer(alpha), step)
    results = (fields(solved), pointer(grad), pointer(out))
    call("entmax_loss_backward", *_rows(z), *exponents, *results, threads(z.numel()))
    return out
