"""The next words of a decoder from integer scores, certified, and without (N, V) float scores.

A decoder asks the same weights for the next word again and again, so they are rounded once, to
16-bit integers that the processor multiplies and adds in pairs: on AVX2 twice as many in a cycle
as in float32, from half the memory. With a = (w, b) and u = (x, 1), W the largest |a_j| and D the
number of their entries, one scale c = 32000 / W for all columns and c_u = 32000 / |u| for the row
give integers a', u' with |a - a'/c| <= sqrt(D) / (2 c), so that no sum of products leaves 32 bits
and

    |z_j - a'.u' / (c c_u)| <= |u| W (sqrt(D) / 32000 + D / 32000^2 / 4) =: m,

which is small: 7e-4 |u| W at d = 512. A column of the support then has an integer score above the
threshold of the integer scores minus 2 m, as in ``screening``; what is left is computed again in
float32. The dense layer does rows whose scores are not finite, or which have many candidates.
"""

import ctypes
import math
from typing import Optional, Union

import torch
from torch import Tensor

from ..contract import NextTokens
from ..dense_layer import DenseLayer
from .library import call, pointer, threads
from .rows import log_entmax

_BLOCK_SCORES = 1 << 21  # integer scores held at a time: 8 MB
_TILE_ROWS = 4  # of csrc/next_tokens.c: fewer at the end of a block take almost as long
_MANY_DENSE = 0.25  # share of rows left to the dense layer above which integer scores do not pay


class NextTokenLayer:
    """As :class:`.contract.NextTokenLayer`; ``norm`` is the largest |(w, b)|, finite."""

    def __init__(self, dense: DenseLayer, norm: float) -> None:
        self.dense, self.norm, self.pays = dense, norm, True
        weight, bias = dense.weight, dense.bias
        n, d = weight.shape
        sizes = torch.empty(2, dtype=torch.int64)
        places = (pointer(sizes[0]), pointer(sizes[1]))
        call("entmax_rounded_size", n, d, bias is not None, *places)
        n_bytes, stride = sizes.tolist()
        self.rounded = torch.empty(n_bytes // 2, dtype=torch.int16)
        self.block = max(1, _BLOCK_SCORES // stride // _TILE_ROWS) * _TILE_ROWS
        self.scores = torch.empty(self.block, stride, dtype=torch.int32)
        self.rounded_x = torch.empty(self.block, d // 2 + 1, dtype=torch.int32)
        self.errors = torch.empty(2, self.block)
        work = threads(weight.numel())
        matrix = (pointer(weight), pointer(bias), n, d)
        call("entmax_round_weight", *matrix, ctypes.c_float(norm), pointer(self.rounded), work)

    def next_tokens(self, x: Tensor, first: int, k: int) -> NextTokens:
        """As :meth:`.contract.NextTokenLayer.next_tokens`."""
        if not self.pays or x.dtype != torch.float32:
            return self.dense.next_tokens(x, first, k)
        x = x.contiguous()
        found = NextTokens(
            torch.empty(len(x), first + k, dtype=torch.int64),
            torch.empty(len(x), first + k),
            torch.empty(len(x), dtype=torch.int32),
        )
        call(
            "entmax_next_tokens",
            *(pointer(x), *x.shape, pointer(self.dense.weight), pointer(self.dense.bias)),
            *(pointer(self.rounded), len(self.dense.weight), ctypes.c_float(self.norm)),
            *(ctypes.c_float(1 / self.dense.temperature), ctypes.c_double(self.dense.alpha)),
            *(first, k, self.block, pointer(self.rounded_x), pointer(self.scores)),
            *map(pointer, self.errors),
            *map(pointer, found),
            threads(len(x) * self.dense.weight.numel()),
        )
        return self._completed(x, found, first, k)

    def _completed(self, x: Tensor, found: NextTokens, first: int, k: int) -> NextTokens:
        left = (found.support_size < 0).nonzero().squeeze(1)
        if len(left):
            self.pays = len(left) <= _MANY_DENSE * len(x)
            for ours, theirs in zip(found, self.dense.next_tokens(x[left], first, k)):
                ours[left] = theirs.to(ours.dtype)
        return found._replace(support_size=found.support_size.long())


def next_token_layer(
    weight: Tensor, bias: Optional[Tensor], alpha: float, temperature: float
) -> Union[NextTokenLayer, DenseLayer]:
    """As :meth:`.RowKernels.next_token_layer`."""
    weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
    dense = DenseLayer(log_entmax, weight, bias, alpha, temperature)
    norms = torch.linalg.vector_norm(weight, dim=1)
    if bias is not None:
        norms = torch.hypot(norms, bias)
    norm = float(norms.max())
    float32 = weight.dtype == torch.float32 and (bias is None or bias.dtype == weight.dtype)
    return NextTokenLayer(dense, norm) if float32 and math.isfinite(norm) else dense
