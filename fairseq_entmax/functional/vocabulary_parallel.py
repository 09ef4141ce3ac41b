"""The output layer and its loss where each process holds a part of the vocabulary."""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .checks import check_label_smoothing, check_layer, check_reduction, check_scores
from .loss import reduced
from .output_chunks import linear_scores
from .shards import VocabularyShards, find_candidates, find_threshold
from .smoothing import widened

_CHUNK_SCORES = 1 << 24  # held at a time: 64 MB
# torch 2 warns of a choice not made
_UNCHECKED: Dict[str, Any] = (
    {"check_invariants": False} if hasattr(torch.sparse, "check_sparse_tensor_invariants") else {}
)


def vocabulary_parallel_entmax_loss(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    shards: VocabularyShards,
    alpha: float = 1.5,
    *,
    bias: Optional[Tensor] = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    r"""``linear_entmax_loss`` of a layer whose classes lie in several processes; exact.

    .. math::
        L(W x + b; y), \quad W = [W_1; \dots; W_R], \quad
        \nabla_x = \sum_r W_r^\top (p - e_y)_r, \quad \nabla_{W_r} = (p - e_y)_r x^\top

    Every process calls it with the same features and targets. Each finds the threshold of its own
    classes; the highest is a bound for all, and only scores above it are exchanged. No process
    sees the scores of another's other classes.

    Args:
        features: x, shape (..., d), the same in every process.
        weight: W_r, shape (V_r, d): this process's classes.
        target: y, classes counted over all processes, shape (...), int64, the same everywhere.
        shards: who holds which classes.
        alpha: a number in (1, 2].
        bias: b_r, shape (V_r,), or None; ``-inf`` masks a class.
        ignore_index, label_smoothing, reduction: as in :func:`entmax_loss`; uniform smoothing.

    Returns:
        the loss, a scalar or shape (...), the same in every process. The gradient of features is
        the whole one, summed over the processes; it can be differentiated once.

    Raises:
        ValueError: alpha out of range, wrong shapes, a target that is no class.

    Source:
        Shoeybi et al., Megatron-LM (2019), section 3, for cross-entropy; Peters, Niculae, Martins
        (ACL 2019), Proposition 2, for the gradient.

    Example:
        >>> import torch, torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> features, weight = torch.eye(2), torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
        >>> shards = VocabularyShards(len(weight))
        >>> vocabulary_parallel_entmax_loss(features, weight, torch.tensor([0, 1]), shards)
        tensor(0.)
        >>> dist.destroy_process_group()
    """
    check_scores(features)
    check_reduction(reduction)
    check_label_smoothing(label_smoothing)
    check_layer(weight, bias)
    _check(features, weight, target, shards, alpha, ignore_index)
    x, y = features.reshape(-1, features.shape[-1]), target.reshape(-1)
    options = _Options(alpha, ignore_index, label_smoothing, shards)
    loss = _VocabularyParallelLoss.apply(x, weight, bias, y, options).view(target.shape)
    return reduced(loss, target != ignore_index, reduction).to(features.dtype)


def _check(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    shards: VocabularyShards,
    alpha: float,
    ignore_index: int,
) -> None:
    if not 1 < alpha <= 2:
        raise ValueError(
            f"alpha must lie in (1, 2] where the vocabulary is cut, got {alpha}: "
            "at 1 no class has probability zero, so there is nothing to leave out"
        )
    own = shards.sizes[shards.rank]
    if weight.shape != (own, features.shape[-1]):
        raise ValueError(
            f"weight must have shape ({own}, {features.shape[-1]}): the classes of this process, "
            f"and the last dimension of features; got {tuple(weight.shape)}"
        )
    if target.dtype != torch.long or target.shape != features.shape[:-1]:
        raise ValueError(
            f"target must be torch.int64 of shape {tuple(features.shape[:-1])}, "
            f"got {target.dtype} of shape {tuple(target.shape)}"
        )
    wrong = (target != ignore_index) & ((target < 0) | (target >= shards.n_classes))
    if bool(wrong.any()):
        raise ValueError(
            f"target must lie in [0, {shards.n_classes}) or be ignore_index={ignore_index}, "
            f"got {target[wrong][0].item()}"
        )


class _Options(NamedTuple):
    alpha: float
    ignore_index: int
    label_smoothing: float
    shards: VocabularyShards


class _Solved(NamedTuple):
    """The losses of some rows, and p - e_y of this shard's classes, entry by entry."""

    loss: Tensor
    row: Tensor
    column: Tensor
    value: Tensor


def _smoothing(weight: Tensor, bias: Optional[Tensor], options: _Options) -> Tensor:
    """eps q of this shard's classes, q uniform over those of all shards that are allowed."""
    allowed = weight.new_ones(len(weight)) if bias is None else (bias > float("-inf")).to(weight)
    ignored = options.ignore_index - options.shards.first
    if 0 <= ignored < len(allowed):
        allowed[ignored] = 0
    total = options.shards.summed("smoothing", allowed.sum())
    return options.label_smoothing * allowed / total.clamp(min=1)


def _solve(scores: Tensor, y: Tensor, prior: Tensor, options: _Options) -> _Solved:
    """The rows of one chunk; ``prior`` is eps q."""
    alpha, eps, shards, n = options.alpha, options.label_smoothing, options.shards, len(y)
    gap = alpha - 1
    found, largest = find_candidates(scores, alpha, shards)
    d = (found.x - find_threshold(found, n, alpha, shards)[found.row]).clamp(min=0)
    p = d ** (1 / gap)
    kept = y != options.ignore_index
    inside = kept & (y >= shards.first) & (y < shards.first + scores.shape[1])
    own = torch.where(inside, y - shards.first, torch.zeros_like(y))
    z_y = scores.gather(1, own.unsqueeze(1)).squeeze(1).double().masked_fill(~inside, 0.0)
    q_z = scores.masked_fill(prior == 0, 0.0).matmul(prior).double()
    parts = [found.sums(p, n), found.sums(p * found.x, n), found.sums(p * d, n), z_y, q_z]
    total, p_x, p_d, z_y, q_z = shards.summed("losses", torch.stack(parts))
    # p z + H(p) with H = (1 - sum p^alpha) / (alpha gap), and p^alpha = p d
    omega = p_x / gap + (total - p_d) / (alpha * gap)
    loss = (omega + largest - z_y).clamp(min=0) + eps * z_y - q_z
    entries = (found.row, found.column, p)
    row, column, value = _less_the_target(entries, inside, own, 1 - eps)
    counted = kept[row]
    value = value[counted].to(scores.dtype)
    return _Solved(loss.masked_fill(~kept, 0.0), row[counted], column[counted], value)


def _less_the_target(
    entries: Tuple[Tensor, ...], inside: Tensor, own: Tensor, share: float
) -> Tuple[Tensor, ...]:
    """The nonzero entries of p, and one more for each target of this shard."""
    row, column, p = entries
    positive, rows = p > 0, inside.nonzero().squeeze(1)
    return (
        torch.cat([row[positive], rows]),
        torch.cat([column[positive], own[rows]]),
        torch.cat([p[positive], p.new_full((len(rows),), -share)]),
    )


def _chunks(n_rows: int, shards: VocabularyShards) -> List[slice]:
    """The same slices of the rows in every process."""
    size = max(1, _CHUNK_SCORES // max(1, max(shards.sizes)))
    return [slice(i, min(i + size, n_rows)) for i in range(0, n_rows, size)]


class _VocabularyParallelLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Optional[Tensor], y: Tensor, options: _Options
    ) -> Tensor:
        x32, w32 = widened(x.detach()), widened(weight.detach())
        b32 = None if bias is None else widened(bias.detach())
        prior = w32.new_zeros(len(weight))
        if options.label_smoothing:
            prior = _smoothing(w32, b32, options)
        parts = [_Solved(x32.new_zeros(0), y[:0], y[:0], x32.new_zeros(0))]
        for rows in _chunks(len(x), options.shards):
            solved = _solve(linear_scores(x32[rows], w32, b32), y[rows], prior, options)
            parts.append(solved._replace(row=solved.row + rows.start))
        loss, row, column, value = (torch.cat(column) for column in zip(*parts))
        ctx.save_for_backward(x, weight, bias, y, prior, row, column, value)
        ctx.options = options
        return loss.to(x32.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "vocabulary_parallel_entmax_loss can be differentiated once, got create_graph=True"
            )
        x, weight, bias, y, prior, row, column, value = ctx.saved_tensors
        x32, w32 = widened(x), widened(weight)
        scale = grad.to(w32.dtype).masked_fill(y == ctx.options.ignore_index, 0.0)
        entries = torch.stack([row, column])
        values = value.to(w32.dtype) * scale[row]
        shape = (len(x), len(w32))
        g = torch.sparse_coo_tensor(entries, values, shape, **_UNCHECKED)
        grad_x = torch.sparse.mm(g, w32) - torch.outer(scale, prior @ w32)
        grad_x = ctx.options.shards.summed("gradient of features", grad_x)
        grad_w = torch.sparse.mm(g.t(), x32) - torch.outer(prior, scale @ x32)
        grad_b = None
        if bias is not None:
            grad_b = torch.zeros_like(prior).index_add_(0, column, values)
            grad_b = (grad_b - prior * scale.sum()).to(bias.dtype)
        return grad_x.to(x.dtype), grad_w.to(weight.dtype), grad_b, None, None
