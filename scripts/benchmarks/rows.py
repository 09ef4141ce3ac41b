"""Row by row: the mapping, short attention rows, and the loss on scores."""

from functools import partial
from typing import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Row, entmax13, relative_error, run_all
from fairseq_entmax.functional import entmax, entmax_loss, reference

# scale of normal scores
SCORES = {"trained": 3.0, "N(0,1)": 1.0, "near-uniform": 1e-3}


def mapping(quick: bool, runs: int) -> Iterator[Row]:
    return run_all(mapping_cases(), runs)


def attention_rows(quick: bool, runs: int) -> Iterator[Row]:
    return run_all(attention_cases(quick), runs)


def loss(quick: bool, runs: int) -> Iterator[Row]:
    return run_all(loss_cases(), runs)


def trained_like(n: int, v: int, scale: float) -> Tensor:
    return torch.randn(n, v, generator=torch.Generator().manual_seed(0)) * scale


def mapping_cases() -> Iterator[Case]:
    for n, v in ((256, 10000), (64, 32000)):
        for kind, scale in SCORES.items():
            z = trained_like(n, v, scale)
            yield from _mapping("mapping", f"{n}x{v} {kind}", z)


def attention_cases(quick: bool) -> Iterator[Case]:
    for v in (64,) if quick else (30, 64, 100):
        for kind in ("trained", "N(0,1)"):
            z = trained_like(65536, v, SCORES[kind])
            yield from _mapping("attention-rows", f"65536x{v} {kind}", z)


def learned_alpha(quick: bool, runs: int) -> Iterator[Row]:
    return run_all(learned_cases(quick), runs)


def learned_cases(quick: bool) -> Iterator[Case]:
    """Forward and backward, also to alpha, of rows with an alpha of their own."""
    for n, v in ((16384, 64),) if quick else ((16384, 30), (16384, 64), (2048, 512)):
        z, grad = trained_like(n, v, SCORES["N(0,1)"]), trained_like(n, v, 1.0)
        alpha = torch.linspace(1.1, 1.9, n).unsqueeze(1).requires_grad_()
        ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()

        def sparse(z: Tensor = ours, alpha: Tensor = alpha, grad: Tensor = grad) -> None:
            z.grad = alpha.grad = None
            entmax(z, alpha).backward(grad)

        def softmax(z: Tensor = theirs, grad: Tensor = grad) -> None:
            z.grad = None
            torch.softmax(z, -1).backward(grad)

        def gate(z: Tensor = z, alpha: Tensor = alpha, grad: Tensor = grad) -> float:
            few = alpha[::1024].detach()
            rows = [reference.entmax(row, float(a)) for row, a in zip(z[::1024], few)]
            return relative_error(entmax(z[::1024], few), torch.stack(rows))

        yield Case("learned-alpha", f"{n}x{v} N(0,1)", "torch.softmax", sparse, softmax, gate, 2e-6)


def _mapping(bench: str, name: str, z: Tensor) -> Iterator[Case]:
    def gate() -> float:
        few = z[:64]
        return relative_error(entmax(few, 1.5), reference.entmax(few, 1.5))

    def softmax() -> Tensor:
        return torch.softmax(z, -1)

    def ours() -> Tensor:
        return entmax(z, 1.5)

    yield Case(bench, name, "torch.softmax", ours, softmax, gate, 1e-6)
    with_peer = entmax13()
    if with_peer is not None:

        def best_k() -> Tensor:
            return with_peer.entmax15(z, -1, min(100, z.shape[1]))

        yield Case(bench, name, "entmax 1.3 (k=100)", ours, best_k, gate, 1e-6)


def loss_cases() -> Iterator[Case]:
    n, v = 512, 10000
    y = torch.arange(n) % v
    for kind, scale in SCORES.items():
        z = trained_like(n, v, scale).requires_grad_()

        def forget(z: Tensor = z) -> None:
            z.grad = None

        def step(loss: Callable[..., Tensor], z: Tensor = z) -> None:
            forget(z)
            loss(z, y).backward()

        def gate(z: Tensor = z) -> float:
            few = z.detach()[:32].requires_grad_()
            entmax_loss(few, y[:32], 1.5, reduction="sum").backward()
            truth = reference.entmax(few.detach(), 1.5) - F.one_hot(y[:32], v)
            return relative_error(few.grad, truth)

        ours = partial(step, partial(entmax_loss, alpha=1.5))
        peer = partial(step, F.cross_entropy)
        yield Case("loss", f"{n}x{v} {kind}", "F.cross_entropy", ours, peer, gate, 1e-6, forget)
