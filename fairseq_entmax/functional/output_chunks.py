"""One chunk of rows of the fused output layer: its loss, and its gradient, sparse or dense."""

from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from fairseq_entmax.kernels.choose import choose_output_layer
from fairseq_entmax.kernels.contract import NEAR_ONE, SparseRows

from .loss import LossRows, unsmoothed_loss_rows
from .mapping import flatten_rows
from .smoothing import Options

_DENSE_SHARE = 0.15  # above this share of nonzero probabilities GEMMs are faster


class SparseGradient(NamedTuple):
    """p - e_y of the rows of one chunk; None where no gradient is wanted."""

    rows: slice
    g: Optional[SparseRows]


def linear_scores(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """W x + b: x (N, d), weight (V, d), bias (V,) -> (N, V)."""
    return torch.nn.functional.linear(x, weight, bias)


def loss_rows(scores: Tensor, y: Tensor, options: Options) -> LossRows:
    return unsmoothed_loss_rows(scores, y, options.alpha, options.ignore_index, options.alpha)


def with_gradient(scores: Tensor, y: Tensor, options: Options) -> Tuple[LossRows, Tensor]:
    """The loss of some rows, and the dense gradient of its sum with respect to their scores."""
    with torch.enable_grad():
        scores = scores.detach().requires_grad_()
        rows = loss_rows(scores, y, options)
        (gradient,) = torch.autograd.grad(rows.loss.sum(), scores)
    return LossRows(rows.loss.detach(), *rows[1:]), gradient


class ChunkSolver:
    """Solves chunks, by the sparse path while the support is small enough for it."""

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Optional[Tensor],
        y: Tensor,
        options: Options,
        needs_grad: bool,
    ) -> None:
        self.x, self.weight, self.bias, self.y = x, weight, bias, y
        self.options, self.needs_grad = options, needs_grad
        self.eager = options.uniform and needs_grad
        self.kernels = choose_output_layer(x) if options.alpha > 1 + NEAR_ONE else None
        if self.kernels is not None and bias is not None and not bool(bias.isfinite().all()):
            self.kernels = None
        _, self.alpha, self.closed = flatten_rows(x, options.alpha, 1, options.alpha)
        self.capacity = max(1, min(len(weight), int(_DENSE_SHARE * len(weight)) + 1))
        self.buffer: Optional[Tensor] = None
        self.screen = None
        if self.kernels is not None:
            self.screen = self.kernels.screen(x, weight, bias, options.alpha)

    def solve(self, rows: slice) -> Tuple[LossRows, Optional[SparseGradient], Optional[Tensor]]:
        """Loss and statistics; the sparse gradient, or else the dense one if it is wanted now."""
        if self.kernels is None:
            return self._solve_dense(self._scores(rows), self.y[rows])
        y = self.y[rows].masked_fill(self.y[rows] == self.options.ignore_index, -1)
        solved = self.screen.solve(rows, y, self.capacity) if self.screen else None
        scores = self.x[:0]
        if solved is None:
            scores = self._scores(rows)
            exponents = (self.alpha, self.closed)
            solved = self.kernels.solve_loss(scores, y, *exponents, self.capacity)
        results = LossRows(
            solved.loss.float(), solved.support_size.long(), solved.target_probs, solved.correct
        )
        if not bool((solved.n_kept < 0).any()):
            g = self.kernels.pack(solved) if self.needs_grad else None
            return results, SparseGradient(rows, g), None
        if not self.eager:
            return results, None, None
        counted = (y >= 0).float()
        gradient = self.kernels.loss_backward(scores, self.alpha, self.closed, solved, counted)
        return results, None, gradient

    def _scores(self, rows: slice) -> Tensor:
        """W x + b. Compiled kernels have it in one buffer for all chunks, which go by size: the
        system zeroes large memory anew each time that it is asked for.
        """
        x = self.x[rows]
        if self.kernels is None:
            return linear_scores(x, self.weight, self.bias)
        if self.buffer is None:
            self.buffer = x.new_empty(len(x), len(self.weight))
        out, weight = self.buffer[: len(x)], self.weight.t()
        if self.bias is None:
            return torch.mm(x, weight, out=out)
        return torch.addmm(self.bias, x, weight, out=out)

    def _solve_dense(self, scores: Tensor, y: Tensor) -> Tuple[LossRows, None, Optional[Tensor]]:
        if self.eager:
            rows, gradient = with_gradient(scores, y, self.options)
            return rows, None, gradient
        with torch.no_grad():
            rows = loss_rows(scores, y, self.options)
        return rows, None, None
