"""The C kernels: found, chosen by processor, loaded with ctypes, threaded like torch.

The library has a plain C interface, so one build serves every torch and Python. It starts no
threads of its own: it borrows the OpenMP runtime that torch has loaded, through the one entry
point that all of them share (``GOMP_parallel``), and obeys ``torch.get_num_threads()``.
"""

import ctypes
import logging
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

BUILDS = ("baseline", "avx2", "avx512")
SWITCH = "FAIRSEQ_ENTMAX_KERNELS"  # "off", or the name of a build

_TYPES: Dict[torch.dtype, int] = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_SHORT_ROW = 512
_SHORT_ALPHAS = (1.5, 2.0)


@lru_cache(maxsize=None)
def library() -> Optional[Any]:
    """The loaded library, or None, said once in the log, when there is none for this machine."""
    wanted = os.environ.get(SWITCH, "")
    if wanted == "off":
        logger.info("compiled kernels are switched off (%s=off): using torch", SWITCH)
        return None
    if wanted and wanted not in BUILDS:
        raise ValueError(f"{SWITCH} must be 'off' or one of {', '.join(BUILDS)}, got {wanted!r}")
    built = {name: path for name in BUILDS for path in [_path(name)] if path is not None}
    runnable = [name for name in BUILDS[: _best_build(built) + 1] if name in built]
    if wanted and wanted not in runnable:  # a choice is kept or refused, never replaced
        why = "this processor cannot run it" if wanted in built else "it is not built here"
        raise ValueError(
            f"{SWITCH}={wanted}: {why} (to be had: {', '.join(runnable) or 'none'}); "
            "leave it unset for the best one"
        )
    if not runnable:
        why = "for this processor" if built else "(built without a C compiler)"
        logger.info("no compiled kernels %s: using torch", why)
        return None
    loaded = ctypes.CDLL(str(built[wanted or runnable[-1]]))
    loaded.entmax_set_parallel(ctypes.c_void_p(_parallel_entry_point()))
    loaded.entmax_screen.restype = ctypes.c_long
    return loaded


def _best_build(built: Dict[str, Path]) -> int:
    """The place in BUILDS of the best one that the processor runs; -1 if there is none."""
    for path in built.values():
        best: int = ctypes.CDLL(str(path)).entmax_best_build()
        return best
    return -1


def _path(build: str) -> Optional[Path]:
    return next(iter(sorted(Path(__file__).parent.glob(f"_entmax_{build}.*"))), None)


def _parallel_entry_point() -> Optional[int]:
    """GOMP_parallel of the OpenMP runtime in this process; None: run on one thread."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    for path in sorted(set(re.findall(r"(/\S*lib(?:gomp|iomp5|omp)\S*\.so\S*)", maps))):
        entry = getattr(ctypes.CDLL(path), "GOMP_parallel", None)
        if entry is not None:
            return ctypes.cast(entry, ctypes.c_void_p).value
    return None


def usable(z: Tensor) -> bool:
    """Whether the kernels take these scores."""
    return z.device.type == "cpu" and z.dtype in _TYPES and library() is not None


def _pointer(tensor: Optional[Tensor]) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


def threads(work: int) -> ctypes.c_long:
    """As many as torch uses, but one where waking others costs more than it gives."""
    return ctypes.c_long(torch.get_num_threads() if work > 32768 else 1)


def rows_of(z: Tensor) -> Tensor:
    """z (N, V) with unit stride along the row; copied only if it must be."""
    return z if z.stride(1) == 1 or z.shape[1] == 1 else z.contiguous()


def _alpha_step(alpha: Tensor) -> ctypes.c_long:
    return ctypes.c_long(0 if alpha.shape[0] == 1 else 1)


def call(name: str, *arguments: Any) -> int:
    """Call a kernel; those that return an int say by it that memory was short."""
    function = getattr(library(), name)
    result: int = function(*arguments)
    return result


def _checked(name: str, *arguments: Any) -> None:
    if call(name, *arguments) != 0:
        raise MemoryError(f"{name}: not enough memory for its scratch space")


def entmax_forward(z: Tensor, alpha: Tensor, closed: float, logarithm: bool = False) -> Tensor:
    """Probabilities of z (N, V), or their logarithm; alpha float64, (N, 1) or (1, 1); closed is
    1.5, 2 or 0.
    """
    z = rows_of(z)
    n_rows, n_columns = z.shape
    probs = torch.empty_like(z, memory_format=torch.contiguous_format)
    shape = (_long(n_rows), _long(n_columns), _long(z.stride(0)))
    short = closed in _SHORT_ALPHAS and n_columns <= _SHORT_ROW and z.dtype == torch.float32
    if short and not logarithm:
        square = ctypes.c_int(closed == 1.5)
        _checked(
            "entmax_short_forward", _pointer(z), *shape, square, _pointer(probs), threads(z.numel())
        )
        return probs
    alpha = alpha.contiguous()
    _checked(
        "entmax_forward",
        _pointer(z),
        *shape,
        ctypes.c_int(_TYPES[z.dtype]),
        _pointer(alpha),
        _alpha_step(alpha),
        _pointer(probs),
        ctypes.c_int(logarithm),
        threads(z.numel()),
    )
    return probs


def entmax_backward(probs: Tensor, grad: Tensor, alpha: Tensor) -> Tensor:
    """The gradient of the scores from that of the probabilities, both (N, V)."""
    grad, alpha = grad.to(probs.dtype).contiguous(), alpha.contiguous()
    out = torch.empty_like(probs)
    _checked(
        "entmax_backward",
        _pointer(probs),
        _pointer(grad),
        _long(probs.shape[0]),
        _long(probs.shape[1]),
        ctypes.c_int(_TYPES[probs.dtype]),
        _pointer(alpha),
        _alpha_step(alpha),
        _pointer(out),
        threads(probs.numel()),
    )
    return out


class _LossFields(ctypes.Structure):
    """loss_t of csrc/loss.h."""

    _fields_ = [
        ("target", ctypes.c_void_p),
        ("capacity", ctypes.c_long),
        ("count", ctypes.c_void_p),
        ("index", ctypes.c_void_p),
        ("value", ctypes.c_void_p),
        ("loss", ctypes.c_void_p),
        ("support", ctypes.c_void_p),
        ("target_prob", ctypes.c_void_p),
        ("correct", ctypes.c_void_p),
        ("tau", ctypes.c_void_p),
        ("largest", ctypes.c_void_p),
    ]


class LossBuffers(NamedTuple):
    """What the loss kernels write for each of N rows; a target of -1 marks a row to ignore."""

    target: Tensor
    count: Tensor  # nonzero probabilities kept, or -1: more than the capacity
    index: Tensor  # (N, capacity)
    value: Tensor  # (N, capacity)
    loss: Tensor  # float64, without label smoothing
    support: Tensor
    target_prob: Tensor
    correct: Tensor
    tau: Tensor
    largest: Tensor

    @classmethod
    def empty(cls, target: Tensor, capacity: int) -> "LossBuffers":
        n = len(target)
        return cls(
            target.contiguous(),
            torch.empty(n, dtype=torch.int32),
            torch.empty(n, capacity, dtype=torch.int32),
            torch.empty(n, capacity),
            torch.empty(n, dtype=torch.float64),
            torch.empty(n, dtype=torch.int32),
            torch.empty(n),
            torch.empty(n, dtype=torch.bool),
            torch.empty(n, dtype=torch.float64),
            torch.empty(n),
        )

    def fields(self) -> Any:
        pointers = {name: tensor.data_ptr() for name, tensor in self._asdict().items()}
        return ctypes.byref(_LossFields(capacity=self.index.shape[1], **pointers))


def entmax_loss_forward(z: Tensor, alpha: Tensor, out: LossBuffers) -> None:
    """The loss of z (N, V), unit stride along the row, into ``out``."""
    _checked(
        "entmax_loss_forward",
        _pointer(z),
        _long(z.shape[0]),
        _long(z.shape[1]),
        _long(z.stride(0)),
        ctypes.c_int(_TYPES[z.dtype]),
        _pointer(alpha),
        _alpha_step(alpha),
        out.fields(),
        threads(z.numel()),
    )


def entmax_loss_backward(z: Tensor, alpha: Tensor, solved: LossBuffers, grad: Tensor) -> Tensor:
    """The dense gradient grad (p - e_y) of z (N, V), in its type; grad is float32, (N,)."""
    out = torch.empty_like(z, memory_format=torch.contiguous_format)
    _checked(
        "entmax_loss_backward",
        _pointer(z),
        _long(z.shape[0]),
        _long(z.shape[1]),
        _long(z.stride(0)),
        ctypes.c_int(_TYPES[z.dtype]),
        _pointer(alpha),
        _alpha_step(alpha),
        solved.fields(),
        _pointer(grad),
        _pointer(out),
        threads(z.numel()),
    )
    return out


def pack(solved: LossBuffers, gold: float, start: Tensor, index: Tensor, value: Tensor) -> None:
    """Compress p - gold e_y into CSR (start, index, value)."""
    pointers = (_pointer(start), _pointer(index), _pointer(value))
    library().entmax_pack(  # type: ignore[union-attr]
        solved.fields(), _long(len(start) - 1), ctypes.c_float(gold), *pointers
    )


def grad_features(
    start: Tensor, index: Tensor, value: Tensor, scale: Tensor, weight: Tensor
) -> Tensor:
    """diag(scale) G W for the sparse G in CSR, (rows, d)."""
    weight = weight.contiguous()
    out = torch.empty(len(start) - 1, weight.shape[1])
    csr = (_pointer(start), _pointer(index), _pointer(value), _pointer(scale))
    library().entmax_grad_features(  # type: ignore[union-attr]
        *csr,
        _long(len(out)),
        _pointer(weight),
        _long(weight.shape[1]),
        _pointer(out),
        threads(len(index) * weight.shape[1]),
    )
    return out


def grad_weight(
    start: Tensor,
    index: Tensor,
    value: Tensor,
    scale: Tensor,
    features: Tensor,
    base: Optional[Tensor],
    base_bias: float,
    excluded: int,
    weight: Tensor,
    bias: Optional[Tensor],
    *,
    accumulate: bool,
) -> None:
    """weight = G^T diag(scale) X (+ base on every row but ``excluded``), and bias likewise."""
    features = features.contiguous()
    csr = (_pointer(start), _pointer(index), _pointer(value), _pointer(scale))
    _checked(
        "entmax_grad_weight",
        *csr,
        _long(len(start) - 1),
        _long(weight.shape[0]),
        _pointer(features),
        _long(features.shape[1]),
        _pointer(base),
        ctypes.c_float(base_bias),
        _long(excluded),
        ctypes.c_int(accumulate),
        _pointer(weight),
        _pointer(bias),
        threads(weight.numel()),
    )


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively."""
    loaded = library()
    return loaded is not None and bool(loaded.entmax_has_bf16())


def round_bf16(matrix: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """bfloat16 copy of a float32 matrix, the norm of each row, and the norm of its rounding."""
    matrix = matrix.contiguous()
    rounded = torch.empty(matrix.shape, dtype=torch.bfloat16)
    norms = torch.empty(2, matrix.shape[0])
    library().entmax_round_bf16(  # type: ignore[union-attr]
        _pointer(matrix),
        _long(matrix.shape[0]),
        _long(matrix.shape[1]),
        _pointer(rounded),
        _pointer(norms[0]),
        _pointer(norms[1]),
        threads(matrix.numel()),
    )
    return rounded, norms[0], norms[1]


def screen(
    scores: Tensor,
    margin: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    alpha: float,
    out: LossBuffers,
) -> int:
    """The loss from bfloat16 scores with a certified margin; how many rows it could not do."""
    kept: int = library().entmax_screen(  # type: ignore[union-attr]
        _pointer(scores),
        _long(scores.shape[0]),
        _long(scores.shape[1]),
        _pointer(margin),
        _pointer(features),
        _pointer(weight),
        _pointer(bias),
        _long(features.shape[1]),
        ctypes.c_double(alpha),
        out.fields(),
        threads(scores.numel()),
    )
    if kept < 0:
        raise MemoryError("entmax_screen: not enough memory for its scratch space")
    return kept
