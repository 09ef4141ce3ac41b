r"""Benchmarks against softmax and entmax 1.3: interleaved, gated by correctness, as ratios.

    python scripts/benchmark.py output-layer loss mapping attention-rows learned-alpha any-alpha \
        small-calls next-token train decode [--json FILE] [--quick] [--data MULTI30K] \
        [--stored FILE]
    python scripts/benchmark.py --device cuda mapping attention-rows loss output-layer attention

A case is timed only after its result agrees with the float64 reference. Ours and the peer run in
turns in one process; what is printed is the median of ours over the median of the peer, in CPU
time (first) and wall time. Lower is better. Peak memory is what the process grows by in one run.
On a GPU (benchmarks/device.py) times are those of its own clock, beside the peers that can be
imported (entmax 1.3, Liger, cut-cross-entropy, adasplash) and the machine's floors.
"""

import argparse
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import torch
from benchmarks import (
    decoding,
    exact_search,
    next_token,
    output_layer,
    peers,
    recipes,
    rows,
    stored,
    training_curve,
)
from benchmarks import device as on_device
from benchmarks.harness import Row, machine

from fairseq_entmax.data.files import write_json

BENCHES: Dict[str, Callable[[bool, int], Iterator[Row]]] = {
    "next-token": next_token.next_token,
    "output-layer": output_layer.output_layer,
    "loss": rows.loss,
    "mapping": rows.mapping,
    "attention-rows": rows.attention_rows,
    "learned-alpha": rows.learned_alpha,
    "any-alpha": rows.any_alpha,
    "small-calls": rows.small_calls,
    "training-curve": training_curve.training_curve,
    "exact-search": exact_search.exact_search,
    "beam-search": exact_search.beam_search,
    "decode": decoding.decode,
}

ON_A_CORPUS: Dict[str, Callable[..., Iterator[Row]]] = {"train": recipes.train}

HEADER = [
    "| bench | case | peer | CPU ratio | wall ratio | peak MB ours / peer |",
    "| --- | --- | --- | ---: | ---: | ---: |",
]


def line(row: Row) -> str:
    peaks = f"{row['ours_peak_mb']:.0f} / {row['peer_peak_mb']:.0f}"
    return (
        f"| {row['bench']} | {row['case']} | {row['peer']} | {row['ratio']:.2f} | "
        f"{row['wall_ratio']:.2f} | {peaks} |"
    )


def check_device(parser: argparse.ArgumentParser, device: str, benches: List[str]) -> None:
    """End with a line where this machine or the benchmark has no such device."""
    if device == "cpu":
        if "attention" in benches:
            parser.error("attention is a benchmark of a GPU: --device cuda")
        return
    if not torch.cuda.is_available():
        parser.error(f"--device {device}: torch {torch.__version__} sees no GPU here")
    others = sorted(set(benches) - set(on_device.BENCHES))
    if others:
        known = ", ".join(on_device.BENCHES)
        parser.error(f"--device {device} has {known}, not {', '.join(others)}")
    for module, name in peers.missing().items():
        print(f"no {module}: pip install {name} to compare with it", file=sys.stderr)


def found_rows(args: argparse.Namespace, bench: str, runs: int) -> Iterator[Row]:
    """The results of one benchmark, as they come."""
    if args.device != "cpu":
        return on_device.rows_of(bench, args.device, args.quick, runs)
    if bench in ON_A_CORPUS:
        return ON_A_CORPUS[bench](args.quick, runs, args.data)
    return BENCHES[bench](args.quick, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted({**BENCHES, **ON_A_CORPUS, **on_device.BENCHES})
    parser.add_argument("bench", nargs="+", choices=names)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases, 3 runs")
    parser.add_argument("--runs", type=int, default=9, help="timed runs of each case (default: 9)")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="MULTI30K",
        help="for train: a folder with train.de, train.en, val.de, ..., or a tar "
        "archive of it (default: made-up words of the same shape)",
    )
    parser.add_argument(
        "--stored", type=Path, metavar="FILE", help="name what has moved against these results"
    )
    args = parser.parse_args()
    if args.data and not args.data.exists():
        parser.error(f"--data {args.data}: no such file or folder")
    if args.data and not set(args.bench) & set(ON_A_CORPUS):
        parser.error(f"--data is for {' and '.join(ON_A_CORPUS)}, not for {' '.join(args.bench)}")
    check_device(parser, args.device, args.bench)
    runs = 3 if args.quick else args.runs
    stamp = machine()
    if args.device != "cpu":
        stamp["gpu"] = torch.cuda.get_device_name()
    header, as_line = (HEADER, line) if args.device == "cpu" else (on_device.HEADER, on_device.line)
    print(", ".join(f"{key} {value}" for key, value in stamp.items()), file=sys.stderr)
    print("\n".join(header))
    results = []
    for bench in args.bench:
        for row in found_rows(args, bench, runs):
            results.append({**row, "machine": stamp})
            print(as_line(row), flush=True)
            if args.json:
                write_json(args.json, results)
    if args.stored:
        print("\n".join(stored.report(results, stored.read(args.stored))))


if __name__ == "__main__":
    main()
