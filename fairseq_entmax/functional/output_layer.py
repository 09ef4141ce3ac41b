"""The output layer and its loss in one step, which never holds the scores of all rows at once.

Rows are taken in chunks. Where the compiled kernels are, a chunk's scores are reduced to the
probabilities on their support (CSR), and the gradients of features and weight are products with
that sparse matrix. A chunk with too many nonzero probabilities (the first updates have full
support), and every chunk on other devices, takes the dense path: its gradient is multiplied out
with GEMMs while it is there.
"""

from contextlib import nullcontext
from typing import Any, ContextManager, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from fairseq_entmax.kernels.choose import choose_device_layer, choose_output_layer
from fairseq_entmax.kernels.contract import (
    NEAR_ONE,
    DeviceLayerKernels,
    OutputLayerKernels,
    SparseRows,
)
from fairseq_entmax.kernels.operators import in_graph

from .checks import Alpha, check_linear, check_once, check_reduction, check_smoothing_probs
from .device_layer import DeviceLayerLoss
from .loss import LossRows, entmax_loss_rows, reduced
from .output_chunks import ChunkSolver, SparseGradient, linear_scores, with_gradient
from .smoothing import LinearSmoothing, Options, widened

_CHUNK_SCORES = 1 << 22  # scores held at a time on the CPU, 16 MB,
_CHUNK_ROWS = 128  # or of so many rows, in half the weight's memory: each chunk reads it whole
_CHUNK_SCORES_DEVICE = 1 << 26


def linear_entmax_loss(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    alpha: Alpha = 1.5,
    *,
    bias: Optional[Tensor] = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    smoothing_probs: Optional[Tensor] = None,
    reduction: str = "mean",
) -> Tensor:
    r"""``entmax_loss(F.linear(features, weight, bias), target)``, in less time and memory.

    .. math::
        L(W x + b; y), \quad \nabla_x = W^\top (p - e_y), \quad \nabla_W = (p - e_y) x^\top

    with p - e_y sparse, so that the gradients cost as much as the support is large. The scores
    (..., V) never exist as a whole.

    Args:
        features: x, shape (..., d), any floating type.
        weight: W, shape (V, d); may be a tied embedding.
        target: y, class indices, shape (...), int64.
        alpha: a number >= 1, or a tensor with one element (no gradient).
        bias: b, shape (V,), or None.
        ignore_index, label_smoothing, smoothing_probs, reduction: as in :func:`entmax_loss`.

    Returns:
        the loss, a scalar or shape (...), in the dtype of ``features``. It can be differentiated
        once.

    Raises:
        ValueError: alpha below 1, a target out of range, wrong shapes or types.
        RuntimeError: in backward, of a second derivative or of a batch of gradients.

    Source:
        Peters, Niculae, Martins (ACL 2019), Proposition 2, for the sparse gradient; the chunked
        output layer follows Wijmans et al., "Cut Your Losses" (ICLR 2025).

    Example:
        >>> import torch
        >>> features, weight = torch.eye(2), torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
        >>> linear_entmax_loss(features, weight, torch.tensor([0, 1]), alpha=1.5)
        tensor(0.)
    """
    check_reduction(reduction)
    rows = linear_entmax_loss_rows(
        features,
        weight,
        target,
        alpha,
        bias=bias,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        smoothing_probs=smoothing_probs,
        uniform=reduction != "none",
    )
    return reduced(rows.loss, target != ignore_index, reduction).to(features.dtype)


def linear_entmax_loss_rows(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    alpha: Alpha = 1.5,
    *,
    bias: Optional[Tensor] = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    smoothing_probs: Optional[Tensor] = None,
    uniform: bool = False,
) -> LossRows:
    """``linear_entmax_loss`` unreduced, with the statistics of ``entmax_loss_rows``.

    Args:
        uniform: the caller promises that the losses of all rows will get the same gradient, as
            after ``sum()``. Dense chunks are then differentiated while their scores are there,
            and need not be computed again in backward.
    """
    alpha = check_linear(features, weight, target, alpha, bias, ignore_index, label_smoothing)
    check_smoothing_probs(smoothing_probs, len(weight))
    options = Options(alpha, ignore_index, uniform, label_smoothing, smoothing_probs)
    if in_graph():  # a graph holds one node for the loss, and the scores
        scores = linear_scores(widened(features), widened(weight), bias)
        return entmax_loss_rows(
            scores,
            target,
            alpha,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            smoothing_probs=smoothing_probs,
        )
    x, y = features.reshape(-1, features.shape[-1]), target.reshape(-1)
    if not torch.is_grad_enabled():  # the function sees only whether its inputs need gradients
        x, weight, bias = x.detach(), weight.detach(), None if bias is None else bias.detach()
    with _without_autocast(x.device.type):  # which would round the scores
        kernels = _device_kernels(x, weight, alpha)
        if kernels is None:
            columns = _LinearEntmaxLoss.apply(x, weight, bias, y, options)
        else:
            columns = DeviceLayerLoss.apply(x, weight, bias, y, options, kernels)
    return LossRows(*(column.view(target.shape) for column in columns))


def _device_kernels(x: Tensor, weight: Tensor, alpha: float) -> Optional[DeviceLayerKernels]:
    if not NEAR_ONE < alpha - 1 <= 1 or 0 in (len(x), len(weight)):
        return None
    return choose_device_layer(x, weight)


def _without_autocast(device: str) -> ContextManager[Any]:
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def sparse_gradients_run(weight: Tensor) -> bool:
    """Whether an output layer with this weight gets the sparse gradients that make it pay."""
    return (choose_output_layer(weight) or choose_device_layer(weight, weight)) is not None


class _Gradients(NamedTuple):
    """Where gradients are collected; None for what needs none."""

    features: Optional[Tensor]
    weight: Optional[Tensor]
    bias: Optional[Tensor]

    @classmethod
    def like(
        cls, x: Tensor, weight: Tensor, bias: Optional[Tensor], needs: Tuple[bool, ...]
    ) -> "_Gradients":
        tensors = zip((x, weight, bias), needs)
        return cls(*(t.new_zeros(t.shape) if t is not None and n else None for t, n in tensors))

    def add_dense(self, rows: slice, scores: Tensor, x: Tensor, weight: Tensor) -> None:
        """What a dense gradient of the scores of some rows contributes."""
        if self.features is not None:
            torch.mm(scores, weight, out=self.features[rows])
        if self.weight is not None:
            self.weight.addmm_(scores.t(), x)
        if self.bias is not None:
            self.bias.add_(scores.sum(0))


class _LinearEntmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Optional[Tensor], y: Tensor, options: Options
    ) -> Tuple[Tensor, ...]:
        x32, w32, b32 = _wide(x, weight, bias)
        needs = ctx.needs_input_grad[:3]
        gradients = None
        results, sparse, dense = [], [], []
        solver = ChunkSolver(x32, w32, b32, y, options, any(needs))
        for rows in _chunks(x32, w32):
            result, entries, gradient = solver.solve(rows)
            results.append(result)
            if entries is not None:
                sparse.append(entries)
            elif any(needs):
                dense.append(rows)
            if gradient is not None:
                gradients = gradients or _Gradients.like(x32, w32, b32, needs)
                gradients.add_dense(rows, gradient, x32[rows], w32)
        ctx.sparse, ctx.dense, ctx.gradients = sparse, dense, gradients
        ctx.kernels, ctx.options = solver.kernels, options
        ctx.save_for_backward(x, weight, bias, y)
        loss, *statistics = (torch.cat(parts) for parts in zip(*results))
        if options.label_smoothing:
            loss += LinearSmoothing.of(x32, w32, b32, y, options).term()
        ctx.mark_non_differentiable(*statistics)
        return (loss, *statistics)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Tuple[Optional[Tensor], ...]:
        x, weight, bias, y = ctx.saved_tensors
        check_once(x, grad)
        x32, w32, b32 = _wide(x, weight, bias)
        # what forward collected is scaled in place, so a second backward starts again
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            gradients = _Gradients.like(x32, w32, b32, ctx.needs_input_grad[:3])
            for rows in ctx.dense:
                scores = linear_scores(x32[rows], w32, b32)
                _, gradient = with_gradient(scores, y[rows], ctx.options)
                gradients.add_dense(rows, gradient * grad[rows].unsqueeze(1), x32[rows], w32)
        elif ctx.dense and len(grad):
            for tensor in gradients:
                if tensor is not None:
                    tensor *= grad[0]
        if ctx.sparse:
            _add_sparse(ctx.kernels, gradients, ctx.sparse, grad.float(), x32, w32)
        if ctx.options.label_smoothing:
            LinearSmoothing.of(x32, w32, b32, y, ctx.options).add_gradients(gradients, grad)
        narrow = zip(gradients, (x, weight, bias))
        results = (None if g is None else g.to(like.dtype) for g, like in narrow)
        return (*results, None, None)


def _wide(*tensors: Optional[Tensor]) -> Tuple[Any, ...]:
    return tuple(None if t is None else widened(t.detach()) for t in tensors)


def _chunks(x: Tensor, weight: Tensor) -> List[slice]:
    budget = _CHUNK_SCORES if x.device.type == "cpu" else _CHUNK_SCORES_DEVICE
    size = max(1, budget // max(1, weight.shape[0]), min(_CHUNK_ROWS, weight.shape[1] // 2))
    return [slice(i, min(i + size, len(x))) for i in range(0, max(1, len(x)), size)]


def _joined(parts: List[SparseRows]) -> SparseRows:
    """The rows of several matrices, one below the other."""
    ends, before = [torch.zeros(1, dtype=torch.int64)], 0
    for part in parts:
        ends.append(part.start[1:] + before)
        before += int(part.start[-1])
    columns, values = (torch.cat([part[i] for part in parts]) for i in (1, 2))
    return SparseRows(torch.cat(ends), columns, values)


def _add_sparse(
    kernels: OutputLayerKernels,
    gradients: _Gradients,
    chunks: List[SparseGradient],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
) -> None:
    """The contributions of the sparse chunks: products with G."""
    rows = torch.cat([torch.arange(c.rows.start, c.rows.stop) for c in chunks])
    scale = grad[rows].contiguous()
    g = _joined([c.g for c in chunks if c.g is not None])
    everything = len(rows) == len(x)
    if gradients.features is not None:
        gradients.features[rows] = kernels.grad_features(g, scale, weight)
    if gradients.weight is not None or gradients.bias is not None:
        into = torch.empty_like(weight) if gradients.weight is None else gradients.weight
        features = x if everything else x[rows]
        kernels.grad_weight(g, scale, features, into, gradients.bias, accumulate=not everything)
