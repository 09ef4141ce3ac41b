"""The mappings alpha-entmax, sparsemax and 1.5-entmax, differentiable any number of times."""

import math
from typing import Any, Callable, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fairseq_entmax.kernels import operators
from fairseq_entmax.kernels.choose import choose, choose_alpha, choose_differentiable
from fairseq_entmax.kernels.contract import NEAR_ONE
from fairseq_entmax.kernels.plain.solver import (
    probs_from_edge,
    probs_from_threshold,
    solve_threshold,
)

from .alpha_gradients import probs_by_alpha
from .checks import Alpha, check_alpha, check_dim, check_scores


def entmax(scores: Tensor, alpha: Alpha = 1.5, dim: int = -1) -> Tensor:
    r"""alpha-entmax: softmax at alpha = 1, sparsemax at 2, exact zeros for every alpha > 1.

    Solves, for every row z of ``scores`` along ``dim``,

    .. math::
        \mathrm{argmax}_{p \in \triangle} \; p^\top z + H_\alpha(p)
        = [(\alpha - 1) z - \tau]_+^{1/(\alpha - 1)}

    Args:
        scores: z, any shape, any floating type. ``-inf`` masks an entry. 16-bit scores are
            solved in 32 bits or more and returned in their own type.
        alpha: a number >= 1, or a tensor of them that broadcasts to ``scores`` with size 1 in
            ``dim`` (one per distribution) and receives a gradient. 1 is exactly torch.softmax;
            large alpha tends to argmax.
        dim: the dimension along which each distribution lies.

    Returns:
        probs p, shape and dtype of ``scores``. A row that is all ``-inf`` gives zeros and a zero
        gradient; a row with NaN or +inf gives NaN in that row only.

    Raises:
        ValueError: alpha below 1 or not finite, a wrong dtype, shape or dimension.

    Source:
        Peters, Niculae, Martins (ACL 2019), eq. 5 and Proposition 2; the gradient with respect
        to alpha is Correia, Niculae, Martins (EMNLP 2019), section 3.3.

    Example:
        >>> import torch
        >>> entmax(torch.tensor([2.0, 1.0, -1.0]), alpha=1.5)
        tensor([0.8307, 0.1693, 0.0000])
    """
    check_scores(scores)
    dim = check_dim(scores, dim)
    largest = check_alpha(alpha, scores, dim)
    if scores.numel() == 0:
        return torch.zeros_like(scores) * scores
    if not isinstance(alpha, Tensor) and alpha == 1:
        return _softmax(scores, dim)
    return _entmax_along(scores, alpha, dim, largest)


def entmax_learned(scores: Tensor, alpha: Tensor) -> Tensor:
    """``entmax(scores, alpha)`` for alphas that lie in [1, 2] and broadcast by construction.

    A check of their values would wait for the device that learns them.
    """
    return _entmax_along(scores, alpha, scores.dim() - 1, 2.0)


def _entmax_along(scores: Tensor, alpha: Alpha, dim: int, largest: float) -> Tensor:
    last = dim == scores.dim() - 1  # a call of few rows is as long as its steps in Python
    z = scores if last else scores.movedim(dim, -1)
    rows, row_alpha, closed = flatten_rows(z, alpha, dim, largest)
    if operators.in_graph() or _is_differentiated():
        probs = entmax_rows(rows, row_alpha, closed)
    else:
        probs = choose(rows).entmax(rows, row_alpha, closed)
    probs = probs.view(z.shape).to(scores.dtype)
    return probs if last else probs.movedim(-1, dim)


def _is_differentiated() -> bool:
    """Whether operations may be recorded, backward or forward."""
    return torch.is_grad_enabled() or getattr(forward_ad, "_current_level", 0) >= 0


def entmax_rows(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    """Probabilities (N, V) of rows as :func:`flatten_rows` gives them, differentiable."""
    apply = entmax_in_graph if operators.in_graph() else _Entmax.apply
    probs: Tensor = apply(z, alpha, closed)
    return probs


def sparsemax(scores: Tensor, dim: int = -1) -> Tensor:
    """sparsemax: the Euclidean projection of scores onto the simplex, argmin_p ||p - z||^2.

    Args:
        scores: z, any shape, any floating type; ``-inf`` masks an entry.
        dim: the dimension along which each distribution lies.

    Returns:
        probs, shape and dtype of ``scores``; the same as ``entmax(scores, alpha=2)``.

    Raises:
        ValueError: a wrong dtype, shape or dimension.

    Source:
        Martins and Astudillo (ICML 2016), eq. 2.

    Example:
        >>> import torch
        >>> sparsemax(torch.tensor([1.0, 0.5, -1.0]))
        tensor([0.7500, 0.2500, 0.0000])
    """
    return entmax(scores, 2.0, dim)


def entmax15(scores: Tensor, dim: int = -1) -> Tensor:
    """1.5-entmax: p = [z / 2 - tau]_+^2, between softmax and sparsemax.

    Args:
        scores: z, any shape, any floating type; ``-inf`` masks an entry.
        dim: the dimension along which each distribution lies.

    Returns:
        probs, shape and dtype of ``scores``; the same as ``entmax(scores, alpha=1.5)``.

    Raises:
        ValueError: a wrong dtype, shape or dimension.

    Source:
        Peters, Niculae, Martins (ACL 2019), section 3.2.

    Example:
        >>> import torch
        >>> entmax15(torch.tensor([1.0, 1.0, -5.0]))
        tensor([0.5000, 0.5000, 0.0000])
    """
    return entmax(scores, 1.5, dim)


def log_entmax(scores: Tensor, alpha: float = 1.5) -> Tensor:
    r"""``entmax(scores, alpha).log()`` along the last dimension, without taking log 0.

    .. math::
        \log p_j \;\text{on the support of}\; p = \mathrm{entmax}_\alpha(z),
        \quad -\infty \;\text{elsewhere}

    Processors take many times longer for the logarithm of a zero than for any other, and most
    probabilities are zero.

    Args:
        scores: z, shape (..., V), any floating type. ``-inf`` masks an entry.
        alpha: a number >= 1.

    Returns:
        log p, shape and dtype of ``scores``, without a gradient.

    Raises:
        ValueError: as :func:`entmax`.

    Source:
        Peters, Niculae, Martins (ACL 2019), eq. 5.

    Example:
        >>> import torch
        >>> log_entmax(torch.tensor([1.0, 1.0, -5.0]), alpha=1.5)
        tensor([-0.6931, -0.6931,    -inf])
    """
    check_scores(scores)
    largest = check_alpha(alpha, scores, check_dim(scores, -1))
    scores = scores.detach()
    if scores.numel() == 0 or not alpha > 1 + NEAR_ONE:
        return entmax(scores, alpha).log()
    rows, row_alpha, closed = flatten_rows(scores, alpha, -1, largest)
    kernels = operators if operators.in_graph() else choose(rows)
    return kernels.log_entmax(rows, row_alpha, closed).view(scores.shape).to(scores.dtype)


def flatten_rows(
    z: Tensor, alpha: Alpha, dim: int, largest: float
) -> Tuple[Tensor, Tensor, Optional[float]]:
    """z (..., V) as (N, V), alpha as the contract wants it, and the closed form if any.

    ``largest`` is a bound of alpha. Above 2 an accelerator solves in float64, and returns that.
    """
    rows = z.reshape(-1, z.shape[-1])
    on_cpu = z.device.type == "cpu"
    if largest > 2 and not on_cpu:
        rows = rows.double()
    if not isinstance(alpha, Tensor):
        constant = torch.full((1, 1), float(alpha), dtype=torch.float64)
        return rows, constant, float(alpha) if alpha in (1.5, 2) else None
    shape = list(z.shape[:-1])
    shape.insert(dim, 1)
    wide = torch.promote_types(alpha.dtype, torch.float64 if on_cpu else torch.float32)
    row_alpha = alpha.to(z.device, wide).expand(shape).movedim(dim, -1)
    return rows, row_alpha.reshape(-1, 1), None


def _softmax(scores: Tensor, dim: int) -> Tensor:
    probs = torch.softmax(scores, dim)
    # what the host can see, saves a pass
    if (
        scores.device.type == "cpu"
        and not operators.in_graph()
        and not bool(probs.select(dim, 0).isnan().any())
    ):
        return probs
    dead = (scores == -math.inf).all(dim, keepdim=True)
    return torch.softmax(scores.masked_fill(dead, 0.0), dim).masked_fill(dead, 0.0)


def entmax_dense(scores: Tensor, alpha: float) -> Tensor:
    """``entmax`` along the last dimension for TorchScript: no autograd function, every column."""
    if alpha == 1.0:
        dead = (scores == -math.inf).all(-1, keepdim=True)
        return torch.softmax(scores.masked_fill(dead, 0.0), -1).masked_fill(dead, 0.0)
    closed: Optional[float] = None
    q: Optional[Tensor] = None
    exponent = torch.full([1], alpha, dtype=torch.float64, device=scores.device)
    if alpha == 1.5 or alpha == 2.0:
        closed = alpha
    else:
        q = 1 / (exponent - 1)
    largest = scores.amax(-1, keepdim=True)
    if alpha > 2:
        probs = probs_from_edge(scores.double(), exponent)
        probs = probs.masked_fill(~largest.isfinite(), math.nan)
    else:
        x = (scores.double() - largest.double()) * (alpha - 1)
        probs = probs_from_threshold(x, solve_threshold(x, closed, q), closed, q)
    return probs.masked_fill(largest == -math.inf, 0.0).to(scores.dtype)


def entmax_dense_learned(scores: Tensor, alpha: Tensor) -> Tensor:
    """As :func:`entmax_dense` for alphas in (1, 2], one for each row, (..., 1)."""
    gap = (alpha.double() - 1).clamp(min=1e-8)  # NEAR_ONE, which TorchScript does not see
    q, largest = 1 / gap, scores.amax(-1, keepdim=True)
    x = (scores.double() - largest.double()) * gap
    probs = probs_from_threshold(x, solve_threshold(x, None, q), None, q)
    return probs.masked_fill(largest == -math.inf, 0.0).to(scores.dtype)


def _save(ctx: Any, inputs: Tuple[Any, ...], output: Tensor) -> None:
    _, alpha, ctx.closed = inputs
    ctx.save_for_backward(output, alpha)


def _grad_scores(ctx: Any, probs: Tensor, grad: Tensor, alpha: Tensor) -> Tensor:
    # a second derivative needs operations that have a graph of their own
    chosen = choose_differentiable if torch.is_grad_enabled() else choose
    return chosen(probs, grad).entmax_backward(probs, grad, alpha, ctx.closed)


def _grad_alpha(probs: Tensor, grad: Tensor, alpha: Tensor) -> Tensor:
    return (grad * probs_by_alpha(probs, alpha)).sum(1, keepdim=True)


class _Entmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
        probs = choose(z).entmax(z, alpha, closed)
        _save(ctx, (z, alpha, closed), probs)
        return probs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], Optional[Tensor], None]:
        probs, alpha = ctx.saved_tensors
        by_z, by_alpha = ctx.needs_input_grad[:2]
        kernels = choose_alpha(probs, grad) if by_alpha else None
        if kernels is not None and not torch.is_grad_enabled():
            both = kernels.entmax_backward_by_alpha(probs, grad, alpha)
            if both is not None:
                return (*both, None)
        grad_z = _grad_scores(ctx, probs, grad, alpha) if by_z else None
        return grad_z, _grad_alpha(probs, grad, alpha) if by_alpha else None, None


def _backward_in_graph(ctx: Any, grad: Tensor) -> Tuple[Tensor, Optional[Tensor], None]:
    probs, alpha = ctx.saved_tensors
    if torch.is_grad_enabled():
        grad_z = _grad_scores(ctx, probs, grad, alpha.to(probs.device))
    else:
        grad_z = operators.entmax_backward(probs, grad, alpha, ctx.closed)
    return grad_z, _grad_alpha(probs, grad, alpha) if ctx.needs_input_grad[1] else None, None


entmax_in_graph: Callable[..., Any] = (
    operators.differentiable(operators.entmax, _save, _backward_in_graph)
    if operators.AVAILABLE
    else _Entmax.apply
)
