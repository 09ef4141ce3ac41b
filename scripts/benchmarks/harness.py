"""Interleaved timing of two functions, gated by correctness, and the stamp of the machine."""

import ctypes
import os
import platform
import statistics
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, NamedTuple, Tuple

import torch
from torch import Tensor

from fairseq_entmax import __version__
from fairseq_entmax.kernels.native.library import library

Row = Dict[str, Any]


LEAST_S = 1.0  # short cases run more often, up to ten times as often, since others use the machine


class Case(NamedTuple):
    """One comparison; ``gate`` returns an error that must not exceed ``tolerance``."""

    bench: str
    name: str
    peer: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    gate: Callable[[], float]
    tolerance: float
    forget: Callable[[], None] = lambda: None  # drops the results of earlier runs


def timed(function: Callable[[], Any]) -> Tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - cpu, time.perf_counter() - wall


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_growth_mb(function: Callable[[], Any], forget: Callable[[], None]) -> float:
    """How much the resident memory grows during one run, sampled every millisecond."""
    forget()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # what earlier runs freed
    if trim is not None:
        trim(0)
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


def run(case: Case, runs: int) -> Row:
    error = case.gate()
    if not error <= case.tolerance:
        raise SystemExit(
            f"{case.bench} {case.name}: the result is off by {error:.1e} (allowed "
            f"{case.tolerance:.0e}); a wrong result is not timed"
        )
    peaks = [peak_growth_mb(each, case.forget) for each in (case.ours, case.theirs)]
    start, pairs = time.perf_counter(), []
    while len(pairs) < runs or (len(pairs) < 10 * runs and time.perf_counter() - start < LEAST_S):
        pairs.append((timed(case.ours), timed(case.theirs)))
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
        "runs": len(pairs),
    }


def run_all(cases: Iterable[Case], runs: int) -> Iterator[Row]:
    for case in cases:
        yield run(case, runs)


def relative_error(ours: Tensor, truth: Tensor) -> float:
    return float((ours.double() - truth).abs().max() / truth.abs().max())


def entmax13() -> Any:
    try:
        import entmax
    except ImportError:
        return None
    return entmax


def machine() -> Row:
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
    kernels = library()
    return {
        "cpu": fields.get("model name", platform.processor()),
        "flags": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "entmax": getattr(entmax13(), "__version__", None),
        "fairseq_entmax": __version__,
        "kernels": Path(kernels._name).name.split(".")[0] if kernels else None,
        "commit": commit.stdout.strip() or None,
        "date": time.strftime("%Y-%m-%d"),
    }
