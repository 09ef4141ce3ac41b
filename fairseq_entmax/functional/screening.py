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

import math
import os
from typing import Any, Optional

import torch
from torch import Tensor

from .dispatch import compiled

SWITCH = "FAIRSEQ_ENTMAX_SCREENING"  # "off" for float32 scores throughout
_FEWEST_SCORES = 1 << 22  # below this the bfloat16 copies cost more than they save
_DENSEST = 0.02  # share of columns in the support above which screening no longer pays


class Screen:
    """bfloat16 copies of an output layer's features and weight, and the error of their scores."""

    def __init__(self, x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> None:
        kernels = compiled(x)
        assert kernels is not None
        self.kernels = kernels
        self.x, self.weight, self.bias = x.contiguous(), weight.contiguous(), bias
        self.rounded_x, norm, error = kernels.round_bf16(self.x)
        self.rounded_weight, weight_norm, weight_error = kernels.round_bf16(self.weight)
        lost = 2.0**-63 * math.sqrt(x.shape[1])  # entries whose squares float32 takes for zero
        norm, error = norm + lost, error + lost
        largest, largest_error = weight_norm.max() + lost, weight_error.max() + lost
        summed = x.shape[1] * 2.0**-23 * norm * largest
        margin = error * largest + (norm + error) * largest_error + summed
        if bias is not None:
            margin += 2.0**-8 * bias.abs().max()
        self.margin = margin * 1.01  # the norms themselves are rounded
        self.pays = True

    @classmethod
    def for_layer(cls, x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Optional["Screen"]:
        """A screen if the machine and the size of the layer make it pay, else None."""
        kernels = compiled(x)
        if kernels is None or x.dtype != torch.float32 or os.environ.get(SWITCH) == "off":
            return None
        large = len(x) * len(weight) >= _FEWEST_SCORES and len(x) >= 512
        return cls(x, weight, bias) if large and kernels.has_bf16() else None

    def solve(self, rows: slice, alpha: float, solved: Any) -> bool:
        """Solve a chunk of rows into ``solved``; False if it has to be done in float32."""
        if not self.pays:
            return False
        scores = self.rounded_x[rows] @ self.rounded_weight.t()
        failed = self.kernels.screen(
            scores, self.margin[rows], self.x[rows], self.weight, self.bias, alpha, solved
        )
        support = int(solved.support.max()) if len(solved.support) else 0
        self.pays = not failed and support <= _DENSEST * len(self.weight)
        return not failed
