"""One chunk of rows of the fused output layer: its loss, and its gradient, sparse or dense."""

from typing import Any, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .dispatch import compiled
from .loss import LossRows, entmax_loss_rows
from .rows import NEAR_ONE
from .screening import Screen

_DENSE_SHARE = 0.15  # above this share of nonzero probabilities GEMMs are faster


class Options(NamedTuple):
    alpha: float
    ignore_index: int
    label_smoothing: float
    uniform: bool


class SparseGradient(NamedTuple):
    """p - (1 - eps) e_y of the rows of one chunk, compressed by rows."""

    rows: slice
    start: Tensor
    column: Tensor
    value: Tensor


def linear_scores(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)


def with_gradient(scores: Tensor, y: Tensor, options: Options) -> Tuple[LossRows, Tensor]:
    """The loss of some rows, and the dense gradient of its sum with respect to their scores."""
    with torch.enable_grad():
        scores = scores.detach().requires_grad_()
        rows = _loss_rows(scores, y, options)
        (gradient,) = torch.autograd.grad(rows.loss.sum(), scores)
    return LossRows(rows.loss.detach(), *rows[1:]), gradient


def _loss_rows(scores: Tensor, y: Tensor, options: Options) -> LossRows:
    return entmax_loss_rows(
        scores,
        y,
        options.alpha,
        ignore_index=options.ignore_index,
        label_smoothing=options.label_smoothing,
    )


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
        sparse = options.alpha > 1 + NEAR_ONE and (bias is None or bool(bias.isfinite().all()))
        self.kernels = compiled(x) if sparse else None
        self.alpha = torch.full((1, 1), options.alpha, dtype=torch.float64)
        self.capacity = max(1, min(len(weight), int(_DENSE_SHARE * len(weight)) + 1))
        self.screen = Screen.for_layer(x, weight, bias) if self.kernels is not None else None
        if options.label_smoothing:
            self.mean_weight, self.mean_bias = mean_weights(weight, bias, options.ignore_index)

    def solve(self, rows: slice) -> Tuple[LossRows, Optional[SparseGradient], Optional[Tensor]]:
        """Loss and statistics; the sparse gradient, or else the dense one if it is wanted now."""
        if self.kernels is None:
            scores = linear_scores(self.x[rows], self.weight, self.bias)
            return self._solve_dense(scores, self.y[rows])
        y = self.y[rows].masked_fill(self.y[rows] == self.options.ignore_index, -1)
        solved = self.kernels.LossBuffers.empty(y, self.capacity)
        scores = self._fill(rows, solved)
        results = self._results(rows, solved)
        if not bool((solved.count < 0).any()):
            return results, self._pack(rows, solved) if self.needs_grad else _nothing(rows), None
        return results, None, self._dense_gradient(scores, solved) if self.eager else None

    def _solve_dense(self, scores: Tensor, y: Tensor) -> Tuple[LossRows, None, Optional[Tensor]]:
        if self.eager:
            rows, gradient = with_gradient(scores, y, self.options)
            return rows, None, gradient
        with torch.no_grad():
            return _loss_rows(scores, y, self.options), None, None

    def _fill(self, rows: slice, solved: Any) -> Tensor:
        """Solve a chunk with the kernels; the scores are returned if they were computed."""
        if self.screen is not None and self.screen.solve(rows, self.options.alpha, solved):
            return self.x[:0]
        scores = linear_scores(self.x[rows], self.weight, self.bias)
        assert self.kernels is not None
        self.kernels.entmax_loss_forward(scores, self.alpha, solved)
        return scores

    def _dense_gradient(self, scores: Tensor, solved: Any) -> Tensor:
        assert self.kernels is not None
        counted = (solved.target >= 0).float()
        gradient: Tensor = self.kernels.entmax_loss_backward(scores, self.alpha, solved, counted)
        smoothing = self.options.label_smoothing * counted.unsqueeze(1)
        if self.options.label_smoothing:
            n, pad = len(self.weight), self.options.ignore_index
            share = smoothing / max(1, smoothed_classes(n, pad))
            gradient -= share
            if 0 <= pad < n:
                gradient[:, pad] += share.squeeze(1)
            gradient.scatter_add_(1, solved.target.clamp(min=0).unsqueeze(1), smoothing)
        return gradient

    def _pack(self, rows: slice, solved: Any) -> SparseGradient:
        counted = (solved.target >= 0) & (solved.largest.isfinite()) & (solved.tau < float("inf"))
        sizes = solved.count + (counted & (solved.target_prob == 0)).int()
        start = torch.zeros(len(sizes) + 1, dtype=torch.int64)
        torch.cumsum(sizes, 0, out=start[1:])
        index = torch.empty(int(start[-1]), dtype=torch.int32)
        value = torch.empty(int(start[-1]))
        assert self.kernels is not None
        self.kernels.pack(solved, 1 - self.options.label_smoothing, start, index, value)
        return SparseGradient(rows, start, index, value)

    def _results(self, rows: slice, solved: Any) -> LossRows:
        loss = solved.loss.float()
        if self.options.label_smoothing:
            x, y = self.x[rows], solved.target.clamp(min=0)
            z_y = (x * self.weight[y]).sum(1)
            if self.bias is not None:
                z_y += self.bias[y]
            smoothing = self.options.label_smoothing * (z_y - x @ self.mean_weight - self.mean_bias)
            loss = loss + smoothing.masked_fill(solved.target < 0, 0.0)
        return LossRows(loss, solved.support.long(), solved.target_prob, solved.correct)


def _nothing(rows: slice) -> SparseGradient:
    empty = torch.zeros(0)
    return SparseGradient(rows, empty, empty, empty)


def smoothed_classes(n_classes: int, ignore_index: int) -> int:
    return n_classes - int(0 <= ignore_index < n_classes)


def mean_weights(weight: Tensor, bias: Optional[Tensor], ignore_index: int) -> Tuple[Tensor, Any]:
    """Weight and bias averaged over the classes that label smoothing spreads over."""
    n = max(1, smoothed_classes(len(weight), ignore_index))
    total, total_bias = weight.sum(0), 0.0 if bias is None else bias.sum()
    if 0 <= ignore_index < len(weight):
        total = total - weight[ignore_index]
        total_bias = total_bias - (0.0 if bias is None else bias[ignore_index])
    return total / n, total_bias / n
