"""What an accelerator computes, beside every peer that can be imported, and floors.

A floor is what the machine itself needs at least: the bytes that must be read and written at the
speed of a copy, or the products at the speed of a matrix product, both measured in the same run.
"""

import statistics
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.harness import Row, relative_error
from fairseq_entmax.functional import entmax, entmax_loss, linear_entmax_loss, reference

HEADER = [
    "| bench | case | peer | ours / peer | ours ms | peer ms | floor ms | peak MB ours / peer |",
    "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
]
SCORES = {"trained": 3.0, "N(0,1)": 1.0, "near-uniform": 1e-3}
HEADS, HEAD_DIM = 8, 64
_CACHE_BYTES = 1 << 28  # written before each run, so that nothing is in the cache


class Case(NamedTuple):
    """One computation, ours and the peers'; ``gate`` is an error that must stay below 5e-3.

    It bounds what 16-bit rounding does; float64 is the truth.
    """

    bench: str
    name: str
    ours: Callable[[], Any]
    peers: Dict[str, Callable[[], Any]]
    gate: Callable[[], float]
    moved_bytes: float
    operations: float = 0.0


class Speed(NamedTuple):
    """Of the machine: bytes and floating-point operations in a second."""

    bytes: float
    operations: float


class Clock:
    """Runs and times one function at a time on a device."""

    def __init__(self, device: str) -> None:
        self.on_gpu = torch.device(device).type == "cuda"
        size = _CACHE_BYTES if self.on_gpu else 1
        self.cache = torch.zeros(size, dtype=torch.int8, device=device)

    def milliseconds(self, function: Callable[[], Any]) -> float:
        self.cache.zero_()
        if not self.on_gpu:
            start = time.perf_counter()
            function()
            return 1e3 * (time.perf_counter() - start)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def peak_mb(self, function: Callable[[], Any]) -> Optional[float]:
        """What one run allocates on the device beyond what is there."""
        if not self.on_gpu:
            return None
        function()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6


def machine_speed(device: str, clock: Clock, size: int) -> Speed:
    """A copy of 4 ``size`` squared bytes and a product of bfloat16 matrices of that size."""
    a = torch.randn(size, size, device=device)
    b, narrow = torch.empty_like(a), a.bfloat16()
    copy = min(clock.milliseconds(lambda: b.copy_(a)) for _ in range(9))
    product = min(clock.milliseconds(lambda: narrow @ narrow) for _ in range(9))
    return Speed(8e3 * size**2 / copy, 2e3 * size**3 / product)


def run(case: Case, clock: Clock, speed: Speed, runs: int) -> Iterator[Row]:
    """A row for every peer; ours runs in turns with each, after a run of both that is not timed."""
    error = case.gate()
    if not error <= 5e-3:
        raise SystemExit(
            f"{case.bench} {case.name}: the result is off by {error:.1e}; it is not timed"
        )
    floor = 1e3 * max(case.moved_bytes / speed.bytes, case.operations / speed.operations)
    clock.milliseconds(case.ours)
    for name, peer in case.peers.items():
        try:
            peaks = [clock.peak_mb(each) for each in (case.ours, peer)]
            clock.milliseconds(peer)
            pairs = [(clock.milliseconds(case.ours), clock.milliseconds(peer)) for _ in range(runs)]
        except Exception as problem:  # of a peer, which must not end the others' run
            print(f"{case.bench} {case.name}: {name} failed: {problem}", file=sys.stderr)
            continue
        ours, theirs = (statistics.median(column) for column in zip(*pairs))
        yield {
            "bench": case.bench,
            "case": case.name,
            "peer": name,
            "ratio": ours / theirs,
            "ours_ms": ours,
            "peer_ms": theirs,
            "floor_ms": floor,
            "ours_peak_mb": peaks[0],
            "peer_peak_mb": peaks[1],
            "runs": runs,
        }


def line(row: Row) -> str:
    """A row of the table; what was not measured is a dash."""
    peaks = [
        "-" if row[f"{who}_peak_mb"] is None else f"{row[f'{who}_peak_mb']:.0f}"
        for who in ("ours", "peer")
    ]
    return (
        f"| {row['bench']} | {row['case']} | {row['peer']} | {row['ratio']:.2f} | "
        f"{row['ours_ms']:.3f} | {row['peer_ms']:.3f} | {row['floor_ms']:.3f} | "
        f"{peaks[0]} / {peaks[1]} |"
    )


def _scores(n: int, v: int, scale: float, device: str, dtype: torch.dtype) -> Tensor:
    z = torch.randn(n, v, generator=torch.Generator().manual_seed(0)) * scale
    return z.to(device, dtype)


def _step(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], None]:
    """Forward and backward with a gradient that is made once."""
    grads: List[Tensor] = []

    def step() -> None:
        result = function(*inputs)
        if not grads:
            grads.append(torch.ones_like(result))
        torch.autograd.grad(result, [t for t in inputs if t.requires_grad], grads[0])

    return step


def _error_of_rows(z: Tensor) -> float:
    few = z.detach()[:16]
    return relative_error(entmax(few, 1.5).cpu(), reference.entmax(few.double().cpu(), 1.5))


def mapping(device: str, quick: bool) -> Iterator[Case]:
    """Forward and backward on long rows."""
    sizes = [(64, 1000)] if quick else [(8192, 1000), (4096, 8192), (2048, 32768), (512, 131072)]
    yield from _mapping("mapping", device, sizes)


def attention_rows(device: str, quick: bool) -> Iterator[Case]:
    """Forward and backward on short rows."""
    lengths = (33,) if quick else (16, 33, 64, 100, 128, 512)
    yield from _mapping("attention-rows", device, [(1024 if quick else 65536, n) for n in lengths])


def _mapping(bench: str, device: str, sizes: List[Any]) -> Iterator[Case]:
    for n, v in sizes:
        for kind, scale in SCORES.items():
            z = _scores(n, v, scale, device, torch.bfloat16).requires_grad_()
            others = {name: _step(f, z) for name, f in peers.mappings().items()}
            moved = 5 * z.numel() * z.element_size()  # z, p; p, dp, dz
            ours = _step(lambda z: entmax(z, 1.5), z)
            yield Case(bench, f"{n}x{v} {kind}", ours, others, lambda z=z: _error_of_rows(z), moved)


def loss(device: str, quick: bool) -> Iterator[Case]:
    """Forward and backward of the loss on scores."""
    for n, v in [(64, 1000)] if quick else [(4096, 8192), (2048, 32768), (512, 131072)]:
        y = torch.arange(n, device=device) % v
        for kind, scale in SCORES.items():
            z = _scores(n, v, scale, device, torch.bfloat16).requires_grad_()
            others = {name: _step(f, z) for name, f in peers.losses(y).items()}
            ours = _step(lambda z, y=y: entmax_loss(z, y, 1.5), z)
            moved = 2 * z.numel() * z.element_size()  # z, dz
            yield Case(
                "loss", f"{n}x{v} {kind}", ours, others, lambda z=z: _error_of_rows(z), moved
            )


def output_layer(device: str, quick: bool) -> Iterator[Case]:
    """A training step of the projection and its loss; support 10 and 100 of random features."""
    sizes = [(64, 32, 500)] if quick else [(4096, 512, 32768), (8192, 2048, 131072)]
    for n, d, v in sizes:
        for kind, gain in {"peaked": 3.0, "support ~100": 0.5}.items():
            x = _scores(n, d, 1.0, device, torch.bfloat16).requires_grad_()
            weight = _scores(v, d, gain / d**0.5, device, torch.bfloat16).requires_grad_()
            y = torch.arange(n, device=device) % v
            others = {name: _step(f, x, weight) for name, f in peers.output_layers(y).items()}
            ours = _step(lambda x, w, y=y: linear_entmax_loss(x, w, y, 1.5), x, weight)

            def gate(x: Tensor = x, weight: Tensor = weight, y: Tensor = y) -> float:
                few, wide = x.detach()[:8].double().cpu(), weight.detach().double().cpu()
                truth = reference.entmax_loss(few @ wide.t(), y[:8].cpu(), 1.5)
                found = linear_entmax_loss(x[:8], weight, y[:8], 1.5, reduction="none")
                return relative_error(found.detach().cpu(), truth)

            moved = 2 * (x.numel() + weight.numel()) * x.element_size()
            name = f"N={n} d={d} V={v} {kind}"
            yield Case("output-layer", name, ours, others, gate, moved, 2.0 * n * d * v)


def attention(device: str, quick: bool) -> Iterator[Case]:
    """Forward and backward of attention, rows at a time; 8 heads of 64."""
    for batch, length in (
        [(2, 16)] if quick else [(128, 32), (64, 64), (32, 128), (16, 256), (8, 512)]
    ):
        for causal in (False, True):
            n = batch * HEADS * length
            q, k, v = (
                _scores(n, HEAD_DIM, 1.0 + i / 8, device, torch.bfloat16)
                .view(batch, HEADS, length, HEAD_DIM)
                .requires_grad_()
                for i in range(3)
            )
            mask = torch.zeros(length, length, device=device, dtype=q.dtype)
            if causal:
                mask = torch.triu(mask - float("inf"), 1)

            def ours(q: Tensor, k: Tensor, v: Tensor, mask: Tensor = mask) -> Tensor:
                return entmax(q @ k.transpose(2, 3) / HEAD_DIM**0.5 + mask, 1.5) @ v

            def gate(q: Tensor = q, k: Tensor = k, mask: Tensor = mask) -> float:
                scores = q[0, 0] @ k[0, 0].t() / HEAD_DIM**0.5 + mask
                return _error_of_rows(scores)

            others = {name: _step(f, q, k, v) for name, f in peers.attentions(causal).items()}
            moved = 8 * q.numel() * q.element_size()  # q, k, v, output and four gradients
            name = f"{batch}x{HEADS}x{length} {'causal' if causal else 'all'}"
            operations = 14.0 * n * length * HEAD_DIM / (2 if causal else 1)
            step = _step(ours, q, k, v)
            yield Case("attention", name, step, others, gate, moved, operations)


BENCHES: Dict[str, Callable[[str, bool], Iterator[Case]]] = {
    "mapping": mapping,
    "attention-rows": attention_rows,
    "loss": loss,
    "output-layer": output_layer,
    "attention": attention,
}


def rows_of(bench: str, device: str, quick: bool, runs: int) -> Iterator[Row]:
    """All rows of one benchmark."""
    clock = Clock(device)
    speed = machine_speed(device, clock, 256 if quick else 8192)
    for case in BENCHES[bench](device, quick):
        yield from run(case, clock, speed, runs)
