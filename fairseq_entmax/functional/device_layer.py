"""The fused output layer on a device whose kernels sweep the classes: scores stay in tiles.

Rows whose supports are long (a model at its first updates) are found by one look from the host.
They are computed again by dense products, chunk after chunk of a few rows' scores.
"""

from typing import Any, Iterator, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from fairseq_entmax.kernels.contract import DeviceLayerKernels

from .checks import check_once
from .loss import LossRows
from .output_chunks import loss_rows, with_gradient
from .smoothing import LinearSmoothing, Options, class_tiles, widened

_DENSE_SCORES = 1 << 25  # of a chunk, 128 MB


class _Layer(NamedTuple):
    """Features (N, d), weight (V, d) and bias (V,), in any floating type."""

    x: Tensor
    weight: Tensor
    bias: Optional[Tensor]

    def scores(self, rows: Tensor) -> Tensor:
        """W x + b of some rows in float32."""
        x = widened(self.x[rows])
        scores = x.new_empty(len(rows), len(self.weight))
        for classes, tile in class_tiles(self.weight):
            torch.mm(x, tile.t(), out=scores[:, classes])
        return scores if self.bias is None else scores.add_(self.bias)

    def dense_chunks(self, rows: Tensor) -> Iterator[Tensor]:
        size = max(1, _DENSE_SCORES // max(1, len(self.weight)))
        return iter(rows.split(size)) if len(rows) else iter(())


class _Gradients(NamedTuple):
    """Those of features, weight and bias; None for what needs none."""

    features: Optional[Tensor]
    weight: Optional[Tensor]
    bias: Optional[Tensor]

    def add_dense(self, layer: _Layer, rows: Tensor, gradient: Tensor) -> None:
        """What the gradient of the scores of some rows contributes."""
        if self.features is not None:
            part = torch.zeros_like(self.features[rows])
            for classes, tile in class_tiles(layer.weight):
                part.addmm_(gradient[:, classes], tile)
            self.features[rows] = part
        if self.weight is not None:
            self.weight.addmm_(gradient.t(), widened(layer.x[rows]))
        if self.bias is not None:
            self.bias.add_(gradient.sum(0))


class DeviceLayerLoss(torch.autograd.Function):
    """Loss and statistics of the rows x (N, d); first order only."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Optional[Tensor],
        y: Tensor,
        options: Options,
        kernels: DeviceLayerKernels,
    ) -> Tuple[Tensor, ...]:
        """The fields of ``LossRows``, (N,) each."""
        layer = _Layer(x.detach(), weight.detach(), None if bias is None else bias.detach())
        target = y.masked_fill(y == options.ignore_index, -1)
        solved = kernels.solve_layer(*layer, target, options.alpha)
        dense = (solved.n_kept < 0).nonzero().squeeze(1)
        counted = solved.tau < float("inf")
        support = solved.support_size.long().masked_fill(~counted, 0)
        results = LossRows(solved.loss, support, solved.target_probs, solved.correct)
        for rows in layer.dense_chunks(dense):
            for whole, part in zip(results, loss_rows(layer.scores(rows), y[rows], options)):
                whole[rows] = part.to(whole.dtype)
        if options.label_smoothing:
            results.loss.add_(LinearSmoothing.of(*layer, y, options).term())
        ctx.g = kernels.pack(solved) if any(ctx.needs_input_grad[:3]) else None
        ctx.kernels, ctx.options = kernels, options
        ctx.save_for_backward(x, weight, bias, y, dense)
        ctx.mark_non_differentiable(*results[1:])
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Tuple[Optional[Tensor], ...]:
        """The gradients of features, weight and bias, in their types."""
        x, weight, bias, y, dense = ctx.saved_tensors
        check_once(x, grad)
        layer, options = _Layer(x.detach(), weight.detach(), bias), ctx.options
        more = len(dense) > 0 or options.label_smoothing > 0
        gradients = _sparse_gradients(ctx, layer, grad, more)
        for rows in layer.dense_chunks(dense):
            _, gradient = with_gradient(layer.scores(rows), y[rows], options)
            gradients.add_dense(layer, rows, gradient * grad[rows].unsqueeze(1))
        if options.label_smoothing:
            LinearSmoothing.of(*layer, y, options).add_gradients(gradients, grad)
        narrow = zip(gradients, (x, weight, bias))
        results = (None if g is None else g.to(like.dtype) for g, like in narrow)
        return (*results, None, None, None)


def _sparse_gradients(ctx: Any, layer: _Layer, grad: Tensor, more: bool) -> _Gradients:
    """What the kept rows contribute; in float32 where there is more to add."""
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    scale = grad.to(torch.float32).contiguous()
    features, weight, bias = None, None, None
    if needs_x:
        features = ctx.kernels.grad_features(ctx.g, scale, layer.weight)
        features = widened(features) if more else features
    if needs_weight or needs_bias:
        dtype = torch.float32 if more else layer.weight.dtype
        weight = torch.empty_like(layer.weight, dtype=dtype)
        if layer.bias is not None:
            bias = torch.empty_like(layer.bias, dtype=torch.float32)
        ctx.kernels.grad_weight(ctx.g, scale, layer.x, weight, bias, accumulate=False)
    return _Gradients(features, weight if needs_weight else None, bias if needs_bias else None)
