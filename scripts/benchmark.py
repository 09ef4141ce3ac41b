"""Benchmarks against softmax and entmax 1.3: interleaved, gated by correctness, as ratios.

    python scripts/benchmark.py output-layer loss mapping attention-rows [--json FILE] [--quick]

A case is timed only after its result agrees with the float64 reference. Ours and the peer run in
turns in one process; what is printed is the median of ours over the median of the peer, in CPU
time (first) and wall time. Lower is better. Peak memory is what the process grows by in one run.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_entmax import __version__
from fairseq_entmax.functional import entmax, entmax_loss, linear_entmax_loss, reference
from fairseq_entmax.functional.dispatch import compiled

SCREENING = "FAIRSEQ_ENTMAX_SCREENING"


class Case(NamedTuple):
    """One comparison; ``gate`` returns an error that must not exceed ``tolerance``."""

    bench: str
    name: str
    peer: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    gate: Callable[[], float]
    tolerance: float


def trained_like(n: int, v: int, scale: float) -> Tensor:
    return torch.randn(n, v, generator=torch.Generator().manual_seed(0)) * scale


SCORES = {"trained": 3.0, "N(0,1)": 1.0, "near-uniform": 1e-3}


def relative_error(ours: Tensor, truth: Tensor) -> float:
    return float((ours.double() - truth).abs().max() / truth.abs().max())


def mapping_cases(quick: bool) -> Iterator[Case]:
    for n, v in ((256, 10000), (64, 32000)):
        for kind, scale in SCORES.items():
            z = trained_like(n, v, scale)
            yield from _mapping("mapping", f"{n}x{v} {kind}", z)


def attention_cases(quick: bool) -> Iterator[Case]:
    for v in (64,) if quick else (30, 64, 100):
        for kind in ("trained", "N(0,1)"):
            z = trained_like(65536, v, SCORES[kind])
            yield from _mapping("attention-rows", f"65536x{v} {kind}", z)


def _mapping(bench: str, name: str, z: Tensor) -> Iterator[Case]:
    out = torch.empty_like(z)

    def gate() -> float:
        few = z[:64]
        return relative_error(entmax(few, 1.5), reference.entmax(few, 1.5))

    def softmax() -> Tensor:
        return torch.softmax(z, -1, out=out)

    def ours() -> Tensor:
        return entmax(z, 1.5)

    yield Case(bench, name, "torch.softmax(out=)", ours, softmax, gate, 1e-6)
    with_peer = entmax13()
    if with_peer is not None:

        def best_k() -> Tensor:
            return with_peer.entmax15(z, -1, min(100, z.shape[1]))

        yield Case(bench, name, "entmax 1.3 (k=100)", ours, best_k, gate, 1e-6)


def entmax13() -> Any:
    try:
        import entmax
    except ImportError:
        return None
    return entmax


def loss_cases(quick: bool) -> Iterator[Case]:
    n, v = 512, 10000
    y = torch.arange(n) % v
    for kind, scale in SCORES.items():
        z = trained_like(n, v, scale).requires_grad_()

        def step(loss: Callable[..., Tensor], z: Tensor = z) -> None:
            z.grad = None
            loss(z, y).backward()

        def gate(z: Tensor = z) -> float:
            few = z.detach()[:32].requires_grad_()
            entmax_loss(few, y[:32], 1.5, reduction="sum").backward()
            truth = reference.entmax(few.detach(), 1.5) - F.one_hot(y[:32], v)
            return relative_error(few.grad, truth)

        ours = partial(step, partial(entmax_loss, alpha=1.5))
        peer = partial(step, F.cross_entropy)
        yield Case("loss", f"{n}x{v} {kind}", "F.cross_entropy", ours, peer, gate, 1e-6)


# gain of the weight that gives about this support with random features
OUTPUT_LAYERS = {
    10000: {"support ~50": 0.65, "support ~500": 0.16, "full support": 1e-3},
    32000: {"support ~50": 0.7},
}


def output_layer_cases(quick: bool) -> Iterator[Case]:
    n, d = (512, 256) if quick else (2048, 512)
    for v, gains in OUTPUT_LAYERS.items():
        for kind, gain in gains.items():
            for screening in ("off", "on"):
                yield _output_layer(n, d, v, kind, gain, screening)


def _output_layer(n: int, d: int, v: int, kind: str, gain: float, screening: str) -> Case:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g).requires_grad_()
    weight = (torch.randn(v, d, generator=g) * gain / d**0.5).requires_grad_()
    y = torch.randint(v, (n,), generator=g)

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        x.grad = weight.grad = None
        loss(x, weight).backward()

    def ours() -> None:
        os.environ[SCREENING] = screening
        step(lambda x, weight: linear_entmax_loss(x, weight, y, 1.5))

    def peer() -> None:
        step(lambda x, weight: F.cross_entropy(F.linear(x, weight), y))

    def gate() -> float:
        ours()
        few = x.detach()[:32].double()
        p = reference.entmax(few @ weight.detach().double().t(), 1.5)
        p[torch.arange(len(few)), y[: len(few)]] -= 1
        return relative_error(x.grad[: len(few)], p @ weight.detach().double() / n)

    how = "float32" if screening == "off" else "screened"
    name = f"N={n} d={d} V={v} {kind}, {how}"
    return Case("output-layer", name, "F.cross_entropy(F.linear)", ours, peer, gate, 1e-5)


BENCHES: Dict[str, Callable[[bool], Iterator[Case]]] = {
    "output-layer": output_layer_cases,
    "loss": loss_cases,
    "mapping": mapping_cases,
    "attention-rows": attention_cases,
}


def timed(function: Callable[[], Any]) -> "tuple[float, float]":
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - cpu, time.perf_counter() - wall


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_growth_mb(function: Callable[[], Any]) -> float:
    """How much the resident memory grows during one run, sampled every millisecond."""
    before, peak, done = resident_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            peak[0] = max(peak[0], resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return max(0.0, peak[0] - before)


def run(case: Case, runs: int) -> Dict[str, Any]:
    error = case.gate()
    if not error <= case.tolerance:
        raise SystemExit(
            f"{case.bench} {case.name}: the result is off by {error:.1e} (allowed "
            f"{case.tolerance:.0e}); a wrong result is not timed"
        )
    peaks = [peak_growth_mb(case.ours), peak_growth_mb(case.theirs)]
    pairs = [(timed(case.ours), timed(case.theirs)) for _ in range(runs)]
    median = [
        [statistics.median(pair[who][clock] for pair in pairs) for clock in (0, 1)]
        for who in (0, 1)
    ]
    return {
        "bench": case.bench,
        "case": case.name,
        "peer": case.peer,
        "ratio": median[0][0] / median[1][0],
        "wall_ratio": median[0][1] / median[1][1],
        "ours_s": median[0][0],
        "peer_s": median[1][0],
        "ours_peak_mb": peaks[0],
        "peer_peak_mb": peaks[1],
        "runs": runs,
    }


def machine() -> Dict[str, Any]:
    """What the figures were measured on."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", "").split())
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    kernels = compiled(torch.zeros(1, 1))
    return {
        "cpu": fields.get("model name", platform.processor()),
        "flags": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "entmax": getattr(entmax13(), "__version__", None),
        "fairseq_entmax": __version__,
        "kernels": Path(kernels.library()._name).name.split(".")[0] if kernels else None,
        "commit": commit.stdout.strip() or None,
        "date": time.strftime("%Y-%m-%d"),
    }


def table(rows: Iterable[Dict[str, Any]]) -> List[str]:
    lines = [
        "| bench | case | peer | CPU ratio | wall ratio | peak MB ours / peer |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for r in rows:
        peaks = f"{r['ours_peak_mb']:.0f} / {r['peer_peak_mb']:.0f}"
        lines.append(
            f"| {r['bench']} | {r['case']} | {r['peer']} | {r['ratio']:.2f} | "
            f"{r['wall_ratio']:.2f} | {peaks} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", nargs="+", choices=sorted(BENCHES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases, 3 runs")
    parser.add_argument("--runs", type=int, default=9, help="timed runs of each case (default: 9)")
    args = parser.parse_args()
    runs = 3 if args.quick else args.runs
    stamp = machine()
    print(", ".join(f"{key} {value}" for key, value in stamp.items()), file=sys.stderr)
    results = []
    for bench in args.bench:
        for case in BENCHES[bench](args.quick):
            results.append(run(case, runs))
            print(table(results[-1:])[-1], flush=True)
    if args.json:
        temporary = args.json.with_name(args.json.name + ".part")
        temporary.write_text(json.dumps({"machine": stamp, "results": results}, indent=1) + "\n")
        os.replace(temporary, args.json)


if __name__ == "__main__":
    main()
