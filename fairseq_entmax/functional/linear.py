"""The output layer and its loss in one step, which never holds the scores of all rows at once.

Rows are taken in chunks. Where the compiled kernels are, a chunk's scores are reduced to the
probabilities on their support (CSR), and the gradients of features and weight are products with
that sparse matrix. A chunk with too many nonzero probabilities (the first updates have full
support), and every chunk on other devices, takes the dense path: its gradient is multiplied out
with GEMMs while it is there.
"""

from typing import Any, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .checks import Alpha, check_linear, check_reduction, check_smoothing_probs
from .dispatch import compiled
from .linear_chunks import (
    ChunkSolver,
    Options,
    SparseGradient,
    linear_scores,
    mean_weights,
    smoothed_classes,
    with_gradient,
)
from .loss import LossRows
from .smoothing import linear_smoothing_term

_CHUNK_SCORES = 1 << 22  # scores held at a time on the CPU: 16 MB
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
    if reduction == "none":
        return rows.loss.to(features.dtype)
    total = rows.loss.sum()
    if reduction == "mean":
        total = total / (target != ignore_index).sum().clamp(min=1)
    return total.to(features.dtype)


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
    if label_smoothing and smoothing_probs is not None:
        rows = linear_entmax_loss_rows(
            features, weight, target, alpha, bias=bias, ignore_index=ignore_index, uniform=uniform
        )
        term = linear_smoothing_term(features, weight, bias, target, smoothing_probs, ignore_index)
        return rows._replace(loss=rows.loss + label_smoothing * term)
    options = Options(alpha, ignore_index, label_smoothing, uniform)
    x = features.reshape(-1, features.shape[-1])
    if not torch.is_grad_enabled():  # the function sees only whether its inputs need gradients
        x, weight, bias = x.detach(), weight.detach(), None if bias is None else bias.detach()
    with torch.autocast(x.device.type, enabled=False):  # which would round the scores
        columns = _LinearEntmaxLoss.apply(x, weight, bias, target.reshape(-1), options)
    return LossRows(*(column.view(target.shape) for column in columns))


class _Gradients(NamedTuple):
    """Where gradients are collected; None for what needs none."""

    features: Optional[Tensor]
    weight: Optional[Tensor]
    bias: Optional[Tensor]

    @classmethod
    def like(
        cls, x: Tensor, weight: Tensor, bias: Optional[Tensor], needs: Tuple[bool, ...]
    ) -> "_Gradients":
        tensors = (x, weight, bias)
        wanted = [t if n else None for t, n in zip(tensors, needs)]
        return cls(*(None if t is None else torch.zeros_like(t) for t in wanted))

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
        x32, w32 = _wide(x), _wide(weight)
        b32 = None if bias is None else _wide(bias)
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
        ctx.sparse, ctx.dense, ctx.options, ctx.gradients = sparse, dense, options, gradients
        ctx.save_for_backward(x, weight, bias, y)
        outputs = tuple(torch.cat(parts) for parts in zip(*results))
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Tuple[Optional[Tensor], ...]:
        # once_differentiable would take a second derivative for zero and say nothing
        if torch.is_grad_enabled():
            raise RuntimeError(
                "linear_entmax_loss can be differentiated once, got create_graph=True: "
                "use entmax_loss of the scores"
            )
        x, weight, bias, y = ctx.saved_tensors
        x32, w32 = _wide(x), _wide(weight)
        b32 = None if bias is None else _wide(bias)
        # what forward collected is scaled in place, so a second backward starts again
        options, gradients, ctx.gradients = ctx.options, ctx.gradients, None
        if gradients is None:
            gradients = _Gradients.like(x32, w32, b32, ctx.needs_input_grad[:3])
            for rows in ctx.dense:
                scores = linear_scores(x32[rows], w32, b32)
                _, gradient = with_gradient(scores, y[rows], options)
                gradients.add_dense(rows, gradient * grad[rows].unsqueeze(1), x32[rows], w32)
        elif ctx.dense and len(grad):
            for tensor in gradients:
                if tensor is not None:
                    tensor *= grad[0]
        if ctx.sparse:
            _add_sparse(gradients, ctx.sparse, grad.float().contiguous(), x32, w32, y, options)
        narrow = zip(gradients, (x, weight, bias))
        return (*(None if g is None else g.to(like.dtype) for g, like in narrow), None, None)


def _wide(tensor: Tensor) -> Tensor:
    """16-bit tensors are computed with in float32."""
    tensor = tensor.detach()
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _chunks(x: Tensor, weight: Tensor) -> List[slice]:
    budget = _CHUNK_SCORES if x.device.type == "cpu" else _CHUNK_SCORES_DEVICE
    size = max(1, budget // max(1, weight.shape[0]))
    return [slice(i, min(i + size, len(x))) for i in range(0, max(1, len(x)), size)]


def _add_sparse(
    gradients: _Gradients,
    chunks: List[SparseGradient],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    options: Options,
) -> None:
    """The contributions of the sparse chunks: products with G, and label smoothing's rank one."""
    kernels = compiled(x)
    assert kernels is not None
    rows = torch.cat([torch.arange(c.rows.start, c.rows.stop) for c in chunks])
    scale = grad[rows].contiguous()
    offsets = torch.tensor([0, *(int(c.start[-1]) for c in chunks)]).cumsum(0)
    ends = [c.start[1:] + o for c, o in zip(chunks, offsets)]
    start = torch.cat([torch.zeros(1, dtype=torch.int64), *ends])
    g = (start, torch.cat([c.column for c in chunks]), torch.cat([c.value for c in chunks]), scale)
    everything = len(rows) == len(x)
    features = x if everything else x[rows]
    smoothing = options.label_smoothing
    counted = scale * (y[rows] != options.ignore_index)
    if gradients.features is not None:
        product = kernels.grad_features(*g, weight)
        if smoothing:
            mean_weight, _ = mean_weights(weight, None, options.ignore_index)
            product.addr_(counted, mean_weight, alpha=-smoothing)
        gradients.features[rows] = product
    base, base_bias = None, 0.0
    if smoothing:
        share = smoothing / max(1, smoothed_classes(len(weight), options.ignore_index))
        base, base_bias = -share * (counted @ features), -share * float(counted.sum())
    if gradients.weight is not None or gradients.bias is not None:
        into = torch.empty_like(weight) if gradients.weight is None else gradients.weight
        excluded = options.ignore_index
        kernels.grad_weight(
            *g, features, base, base_bias, excluded, into, gradients.bias, accumulate=not everything
        )
