"""Argument checks shared by the public functions: each error says what it received."""

import math
from numbers import Real
from typing import Optional, Union

import torch
from torch import Tensor

from fairseq_entmax.kernels.contract import has_storage
from fairseq_entmax.kernels.operators import in_graph

Alpha = Union[float, Tensor]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_scores(scores: Tensor) -> None:
    """scores are floating point, with classes in the last dimension."""
    if not isinstance(scores, Tensor):
        raise ValueError(f"scores must be a tensor, got {type(scores).__name__}")
    if scores.dtype not in _FLOATS:
        raise ValueError(f"scores must be floating point, got {scores.dtype}")
    check_layout("scores", scores)
    if scores.dim() == 0:
        raise ValueError("scores must have at least one dimension, got a scalar")


def check_layout(name: str, tensor: Tensor) -> None:
    """Every entry of the tensor lies in memory."""
    if tensor.layout != torch.strided:
        raise ValueError(
            f"{name} must be dense, got {tensor.layout}: call to_dense() if what is not stored is 0"
        )


def check_dim(scores: Tensor, dim: int) -> int:
    """The same dimension, counted from the front."""
    if not -scores.dim() <= dim < scores.dim():
        raise ValueError(f"dim={dim} is out of range for scores of shape {tuple(scores.shape)}")
    return dim % scores.dim()


def check_alpha(alpha: Alpha, scores: Tensor, dim: int) -> float:
    """alpha is a finite number >= 1, or a tensor of them with one value per row of scores.

    Returns:
        the largest of them.
    """
    if not isinstance(alpha, Tensor):
        if isinstance(alpha, bool) or not isinstance(alpha, Real):  # of numpy too
            raise ValueError(f"alpha must be a number or a tensor, got {type(alpha).__name__}")
        if not (1 <= alpha < math.inf):
            raise ValueError(f"alpha must be finite and >= 1, got {alpha}")
        return float(alpha)
    if alpha.is_complex() or alpha.dtype == torch.bool:
        raise ValueError(f"alpha must be a tensor of numbers, got {alpha.dtype}")
    largest = _check_range("alpha", alpha.detach(), 1)
    from_the_end = scores.dim() - dim
    if alpha.dim() >= from_the_end and alpha.shape[-from_the_end] != 1:
        raise ValueError(
            f"alpha must have size 1 in dim {dim} (one alpha per distribution), "
            f"got shape {tuple(alpha.shape)} for scores of shape {tuple(scores.shape)}"
        )
    try:
        broadcast = torch.broadcast_shapes(alpha.shape, scores.shape)
    except RuntimeError:
        broadcast = None
    if broadcast != scores.shape:
        raise ValueError(
            f"alpha of shape {tuple(alpha.shape)} does not broadcast "
            f"to scores of shape {tuple(scores.shape)}"
        )
    return largest


def _check_range(name: str, values: Tensor, least: int) -> float:
    """Values are finite and >= least; one transfer brings both ends. Returns the largest."""
    if not values.numel():
        return least
    if in_graph():  # where no value can be read, everything is possible
        return math.inf
    smallest, largest = torch.stack([values.min(), values.max()]).tolist()
    if not (least <= smallest and largest < math.inf):  # a NaN is both
        raise ValueError(
            f"{name} must be finite and >= {least}, got values in [{smallest}, {largest}]"
        )
    return float(largest)


def check_target(scores: Tensor, target: Tensor, ignore_index: int) -> None:
    """target holds class indices, one per row of scores."""
    if target.dtype != torch.long:
        raise ValueError(f"target must be torch.int64, got {target.dtype}")
    if target.shape != scores.shape[:-1]:
        raise ValueError(
            f"target must have the shape of scores without its last dimension: "
            f"scores {tuple(scores.shape)}, target {tuple(target.shape)}"
        )
    n_classes = scores.shape[-1]
    if in_graph():  # the operator's back end looks where it can
        return
    outside = (target != ignore_index) & ((target < 0) | (target >= n_classes))
    if target.device.type != "cpu":  # as torch's own losses: an error, when the device is there
        torch._assert_async(~outside.any())
        return
    wrong = target[outside]
    if wrong.numel():
        raise ValueError(
            f"target must lie in [0, {n_classes}) or be ignore_index={ignore_index}, "
            f"got {wrong[0].item()}"
        )


def check_reduction(reduction: str) -> None:
    """reduction is one of 'none', 'sum' and 'mean'."""
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be 'none', 'sum' or 'mean', got {reduction!r}")


def check_label_smoothing(label_smoothing: float) -> None:
    """label_smoothing lies in [0, 1)."""
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")


def check_smoothing_probs(smoothing_probs: Optional[Tensor], n_classes: int) -> None:
    """smoothing_probs is None, or a finite frequency >= 0 for each class."""
    if smoothing_probs is None:
        return
    if smoothing_probs.shape != (n_classes,) or not smoothing_probs.is_floating_point():
        raise ValueError(
            f"smoothing_probs must be floating point of shape ({n_classes},), got "
            f"{smoothing_probs.dtype} of shape {tuple(smoothing_probs.shape)}"
        )
    if smoothing_probs.device.type != "cpu":
        torch._assert_async(((smoothing_probs >= 0) & (smoothing_probs < math.inf)).all())
        return
    _check_range("smoothing_probs", smoothing_probs, 0)


def check_layer(weight: Tensor, bias: Optional[Tensor]) -> None:
    """weight is a matrix, and bias has a number for each of its rows."""
    if weight.dim() != 2:
        raise ValueError(f"weight must have shape (V, d), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")


def check_linear(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    alpha: Alpha,
    bias: Optional[Tensor],
    ignore_index: int,
    label_smoothing: float,
) -> float:
    """The arguments of the fused output layer; returns alpha as a number."""
    check_scores(features)
    check_layout("weight", weight)
    check_label_smoothing(label_smoothing)
    if weight.dim() != 2 or not 0 < features.shape[-1] == weight.shape[1]:
        raise ValueError(
            f"weight must have shape (V, d) with d > 0 the last dimension of features: "
            f"features {tuple(features.shape)}, weight {tuple(weight.shape)}"
        )
    check_layer(weight, bias)
    check_target(features[..., :1].expand(*features.shape[:-1], len(weight)), target, ignore_index)
    if isinstance(alpha, Tensor):
        if alpha.numel() != 1 or alpha.requires_grad:
            raise ValueError(
                f"alpha must be a number or one constant here, got a tensor of shape "
                f"{tuple(alpha.shape)}: use entmax_loss for an alpha of its own in each row"
            )
        alpha = alpha.item()
    check_alpha(alpha, features, features.dim() - 1)
    return float(alpha)


def check_once(x: Tensor, grad: Tensor) -> None:
    """A backward pass of features x that is of the first order, with one gradient of the losses.

    ``once_differentiable`` would take a second derivative for zero and say nothing.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "linear_entmax_loss can be differentiated once, got create_graph=True: "
            "use entmax_loss of the scores"
        )
    if has_storage(x) and not has_storage(grad):
        raise RuntimeError(
            "linear_entmax_loss takes one gradient at a time, got a batch of them "
            "(vectorize=True, is_grads_batched=True): use entmax_loss of the scores"
        )
