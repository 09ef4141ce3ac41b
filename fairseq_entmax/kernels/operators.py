"""The rows' kernels as operators of ``torch.library``: what graphs and transforms hold on to.

An operator stands for the back end that :func:`.choose.choose` takes when it runs, so compiled and
exported graphs, ``torch.func`` and fake tensors see one node with known shapes, and no kernel sees
a tensor without memory. Eager code calls the kernels themselves: an operator costs 1.8 times as
much there (docs/gpu.md).
"""

from typing import Any, Callable, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .choose import choose
from .contract import SolvedRows

AVAILABLE = hasattr(torch.library, "register_vmap")  # torch >= 2.5


def in_graph() -> bool:
    """Whether a graph is being made or ``torch.func`` at work: values cannot be read."""
    return AVAILABLE and (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    )


def _tau_type(z: Tensor) -> torch.dtype:
    on_cpu = z.device.type == "cpu"
    return torch.float64 if on_cpu else torch.promote_types(z.dtype, torch.float32)


def _solved_types(z: Tensor) -> List[torch.dtype]:
    """The types of all fields of :class:`.contract.SolvedRows` but the target."""
    wide = torch.promote_types(z.dtype, torch.float32)
    kept = [torch.int32, torch.int32, wide]
    return [*kept, wide, torch.int64, wide, torch.bool, _tau_type(z), wide]


def _entmax(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    return choose(z).entmax(z, alpha, closed).contiguous()


def _log_entmax(z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    return choose(z).log_entmax(z, alpha, closed).contiguous()


def _entmax_backward(probs: Tensor, grad: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
    kernels = choose(probs, grad)
    return kernels.entmax_backward(probs, grad, alpha, closed).contiguous()


def _like_first(first: Tensor, *_: Any) -> Tensor:
    return first.new_empty(first.shape)


def _solve_loss(
    z: Tensor, target: Tensor, alpha: Tensor, closed: Optional[float], capacity: int
) -> List[Tensor]:
    _check_classes(target, z.shape[1])
    fields = choose(z).solve_loss(z, target, alpha, closed, capacity)[1:]
    return [_fitted(t, capacity).to(kind) for t, kind in zip(fields, _solved_types(z))]


def _check_classes(target: Tensor, n_classes: int) -> None:
    """Graphs know no values: who makes them cannot check what no kernel survives."""
    wrong = (target < -1) | (target >= n_classes)
    if target.device.type != "cpu":
        torch._assert_async(~wrong.any())
    elif bool(wrong.any()):
        raise ValueError(f"target must lie in [0, {n_classes}) or be ignore_index")


def _fitted(field: Tensor, capacity: int) -> Tensor:
    """Back ends may keep fewer entries than they are allowed to; graphs want to know the shape."""
    if field.dim() == 1:
        return field
    return torch.nn.functional.pad(field, (0, capacity - field.shape[1]))


def _solve_loss_fake(
    z: Tensor, target: Tensor, alpha: Tensor, closed: Optional[float], capacity: int
) -> List[Tensor]:
    n = z.shape[0]
    shapes = [(n, capacity) if i in (1, 2) else (n,) for i in range(len(SolvedRows._fields) - 1)]
    return [z.new_empty(s, dtype=kind) for s, kind in zip(shapes, _solved_types(z))]


def _loss_backward(
    z: Tensor,
    grad: Tensor,
    target: Tensor,
    solved: Sequence[Tensor],
    alpha: Tensor,
    closed: Optional[float],
) -> Tensor:
    rows = SolvedRows(target, *solved)
    return choose(z).loss_backward(z, alpha, closed, rows, grad).contiguous()


def _alpha_of_batch(alpha: Tensor, dim: Optional[int], size: int, n_rows: int) -> Tensor:
    if dim is None and alpha.shape[0] == 1:
        return alpha
    alpha = alpha.unsqueeze(0) if dim is None else alpha.movedim(dim, 0)
    return alpha.expand(size, n_rows, 1).reshape(-1, 1)


def _rows_of_batch(tensor: Tensor, dim: Optional[int], size: int) -> Tensor:
    tensor = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return tensor.flatten(0, 1)


def _over_rows(operator: Callable[..., Any], alpha_at: int) -> Callable[..., Any]:
    """The rule of vmap for an operator on rows: a batch of matrices is one with more rows."""

    def rule(info: Any, in_dims: Tuple[Any, ...], *args: Any) -> Tuple[Any, Any]:
        size = info.batch_size
        n_rows = args[0].shape[0 if in_dims[0] is None else 1 - min(in_dims[0], 1)]
        flat = list(args)
        for i, (arg, dim) in enumerate(zip(args, in_dims)):
            if i == alpha_at:
                flat[i] = _alpha_of_batch(arg, dim, size, n_rows)
            elif isinstance(arg, Tensor):
                flat[i] = _rows_of_batch(arg, dim, size)
            elif isinstance(arg, (list, tuple)):
                flat[i] = [_rows_of_batch(t, d, size) for t, d in zip(arg, dim)]
        results = operator(*flat)
        if isinstance(results, Tensor):
            return results.unflatten(0, (size, n_rows)), 0
        return [t.unflatten(0, (size, n_rows)) for t in results], [0] * len(results)

    return rule


def _operator(kernel: Callable[..., Any], fake: Callable[..., Any], alpha_at: int) -> Any:
    """The operator ``fairseq_entmax::NAME`` for a function ``_NAME`` on rows."""
    name = f"fairseq_entmax::{kernel.__name__.lstrip('_')}"
    operator = torch.library.custom_op(name, kernel, mutates_args=())
    operator.register_fake(fake)
    operator.register_vmap(_over_rows(operator, alpha_at))
    return operator


def differentiable(
    operator: Any, save: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """The operator with a derivative, for graphs and, as ``torch.func`` needs it, as a function.

    ``save`` and ``backward`` are those of an autograd function; a list counts as several results.
    """
    several = isinstance(operator._opoverload._schema.returns[0].type, torch.ListType)

    def forward(*args: Any) -> Any:
        results = operator(*args)
        return tuple(results) if several else results

    parts = {"forward": forward, "setup_context": save, "backward": backward}
    members = {name: staticmethod(part) for name, part in parts.items()}
    function: Any = type("F", (torch.autograd.Function,), {**members, "generate_vmap_rule": True})
    of_list = (lambda ctx, grads: backward(ctx, *grads)) if several else backward
    operator.register_autograd(of_list, setup_context=save)

    def call(*args: Any) -> Any:
        transformed = torch._C._are_functorch_transforms_active()
        return function.apply(*args) if transformed else operator(*args)

    return call


if AVAILABLE:
    entmax = _operator(_entmax, _like_first, 1)
    log_entmax = _operator(_log_entmax, _like_first, 1)
    entmax_backward = _operator(_entmax_backward, _like_first, 2)
    solve_loss = _operator(_solve_loss, _solve_loss_fake, 2)
    loss_backward = _operator(_loss_backward, _like_first, 4)
