"""Certified screening of an output layer with bfloat16 scores.

Where the processor multiplies bfloat16 natively, the scores z' = bf16(x) . bf16(w) cost a third
of the float32 ones. They serve to exclude columns, never to compute a probability. With x = x' +
e_x and w = w' + e_w for the rounded x', w',

    |z_j - x'.w'_j| = |e_x . w_j + x' . e_w| <= |e_x| max|w| + (|x| + |e_x|) max|e_w| =: a,

and adding up d products in float32 and rounding the sum to bfloat16 adds at most
d 2^-23 |x| max|w| + |z'_j| 2^-8. With a bias b, z'_j + b_j is compared, and |z'_j| is at most
|z'_j + b_j| + max|b|. Let m be the sum for the largest of these between threshold and maximum.
The threshold t(z) = max z + tau / (alpha - 1), above which lies the support, rises with
every score and moves by at most m when all scores do: t(z) >= t(z') - m. So a column of the
support has z'_j >= z_j - m > t(z') - 2 m, and all others need not be looked at. What is left is
computed again in float32.
"""

import ctypes
import math
import os
from typing import Optional, Tuple

import torch
from torch import Tensor

from ..contract import SolvedRows
from .library import call, pointer, threads
from .rows import empty_rows, fields

SWITCH = "FAIRSEQ_ENTMAX_SCREENING"  # "off" for float32 scores throughout
_FEWEST_SCORES = 1 << 22  # below this the bfloat16 copies cost more than they save
_DENSEST = 0.02  # share of columns in the support above which screening no longer pays


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively."""
    return bool(call("entmax_has_bf16"))


def screen(x: Tensor, weight: Tensor, bias: Optional[Tensor], alpha: float) -> Optional["Screen"]:
    """As :meth:`.OutputLayerKernels.screen`."""
    if x.dtype != torch.float32 or os.environ.get(SWITCH) == "off":
        return None
    large = len(x) * len(weight) >= _FEWEST_SCORES and len(x) >= 512
    return Screen(x, weight, bias, alpha) if large and has_bf16() else None


def _round(matrix: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """bfloat16 copy of a float32 matrix, the norm of each row, and the norm of its rounding."""
    rounded = torch.empty(matrix.shape, dtype=torch.bfloat16)
    norms = torch.empty(2, matrix.shape[0])
    results = map(pointer, (rounded, norms[0], norms[1]))
    call("entmax_round_bf16", pointer(matrix), *matrix.shape, *results, threads(matrix.numel()))
    return rounded, norms[0], norms[1]


class Screen:
    """bfloat16 copies of an output layer's features and weight, and the error of their scores."""

    def __init__(self, x: Tensor, weight: Tensor, bias: Optional[Tensor], alpha: float) -> None:
        self.x, self.weight, self.alpha = x.contiguous(), weight.contiguous(), alpha
        self.bias = None if bias is None else bias.contiguous()
        self.rounded_x, norm, error = _round(self.x)
        self.rounded_weight, weight_norm, weight_error = _round(self.weight)
        lost = 2.0**-63 * math.sqrt(x.shape[1])  # entries whose squares float32 takes for zero
        norm, error = norm + lost, error + lost
        largest, largest_error = weight_norm.max() + lost, weight_error.max() + lost
        summed = x.shape[1] * 2.0**-23 * norm * largest
        margin = error * largest + (norm + error) * largest_error + summed
        if bias is not None:
            margin += 2.0**-8 * bias.abs().max()
        self.margin = margin * 1.01  # the norms themselves are rounded
        self.pays = True

    def solve(self, rows: slice, target: Tensor, capacity: int) -> Optional[SolvedRows]:
        """A chunk of rows, or None if it has to be done in float32."""
        if not self.pays:
            return None
        scores = self.rounded_x[rows] @ self.rounded_weight.t()
        solved = empty_rows(target, capacity)
        layer = (self.margin[rows], self.x[rows], self.weight, self.bias)
        failed = call(
            "entmax_screen",
            pointer(scores),
            *scores.shape,
            *map(pointer, layer),
            self.x.shape[1],
            ctypes.c_double(self.alpha),
            fields(solved),
            threads(scores.numel()),
        )
        support = int(solved.support_size.max()) if len(target) else 0
        self.pays = not failed and support <= _DENSEST * len(self.weight)
        return None if failed else solved
