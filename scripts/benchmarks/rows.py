"""Row by row: the mapping, short attention rows, and the loss on scores."""

from functools import partial
from typing import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Row, entmax13, relative_error, run_all
from fairseq_entmax.functional import entmax, entmax_loss, reference

# scale of normal scores
SCORES = {"trained": 3.0, "N(0,1)": 1.0, "mid": 0.1, "near-uniform": 1e-3}


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
    for v in (64,) if quick else (30, 64, 100, 512):
        for kind in ("trained", "N(0,1)"):
            z = trained_like(65536 * 64 // v, v, SCORES[kind])
            name = f"{len(z)}x{v} {kind}"
            yield from _mapping("attention-rows", name, z)
            yield _both_ways("attention-rows", f"{name}, forward + backward", z)
            z = z.bfloat16()
            yield from _mapping("attention-rows", f"{name}, bfloat16", z)
            yield _both_ways("attention-rows", f"{name}, bfloat16, forward + backward", z)


def any_alpha(quick: bool, runs: int) -> Iterator[Row]:
    return run_all(any_alpha_cases(quick), runs)


def any_alpha_cases(quick: bool) -> Iterator[Case]:
    """Exponents without a closed form."""
    for n, v in ((16384, 64),) if quick else ((16384, 30), (16384, 64), (64, 10000)):
        z = trained_like(n, v, SCORES["N(0,1)"])
        for alpha in (1.25, 1.75) if quick else (1.25, 1.75, 3.0):
            yield from _mapping("any-alpha", f"{n}x{v} alpha {alpha}", z, alpha)


def small_calls(quick: bool, runs: int) -> Iterator[Row]:
    return run_all(small_cases(quick), runs)


def small_cases(quick: bool) -> Iterator[Case]:
    """What one head or one step of decoding asks for: mostly steps in Python."""
    with torch.no_grad():
        for n, v in ((32, 16),) if quick else ((1, 16), (32, 16), (512, 64)):
            yield from _mapping("small-calls", f"{n}x{v}", trained_like(n, v, 1.0), repeat=20)
        z = trained_like(16, 32, 1.0)
        yield from _mapping("small-calls", "16x32, dim 0", z, dim=0, repeat=20)


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


def _mapping(
    bench: str, name: str, z: Tensor, alpha: float = 1.5, dim: int = -1, repeat: int = 1
) -> Iterator[Case]:
    tolerance = 2e-6 if z.dtype == torch.float32 else 2**-8

    def gate() -> float:
        few = z[:64].movedim(dim, -1)
        return relative_error(entmax(few, alpha), reference.entmax(few.float(), alpha))

    def times(function: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def repeated() -> None:
            for _ in range(repeat):
                function(z)

        return repeated

    ours, softmax = (
        times(partial(entmax, alpha=alpha, dim=dim)),
        times(partial(torch.softmax, dim=dim)),
    )
    yield Case(bench, name, "torch.softmax", ours, softmax, gate, tolerance)
    with_peer = entmax13()
    if with_peer is not None and alpha == 1.5 and z.dtype == torch.float32:
        best_k = times(partial(with_peer.entmax15, dim=dim, k=min(100, z.shape[dim])))
        yield Case(bench, name, "entmax 1.3 (k=100)", ours, best_k, gate, tolerance)


def _both_ways(bench: str, name: str, z: Tensor) -> Case:
    z, grad = z.clone().requires_grad_(), trained_like(*z.shape, 1.0).to(z.dtype)
    tolerance = 1e-5 if z.dtype == torch.float32 else 2**-6

    def step(function: Callable[[Tensor], Tensor]) -> None:
        z.grad = None
        function(z).backward(grad)

    def gate() -> float:
        few, g = z[:64].detach().requires_grad_(), grad[:64].double()
        entmax(few, 1.5).backward(grad[:64])
        s = reference.entmax(few.detach().float(), 1.5).sqrt()
        mean = (s * g).sum(1, keepdim=True) / s.sum(1, keepdim=True)
        return relative_error(few.grad, s * (g - mean))

    ours = partial(step, partial(entmax, alpha=1.5))
    softmax = partial(step, partial(torch.softmax, dim=-1))
    return Case(bench, name, "torch.softmax", ours, softmax, gate, tolerance)


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
