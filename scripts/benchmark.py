r"""Benchmarks against softmax and entmax 1.3: interleaved, gated by correctness, as ratios.

    python scripts/benchmark.py output-layer loss mapping attention-rows learned-alpha any-alpha \
        small-calls next-token train decode [--json FILE] [--quick] [--data MULTI30K] \
        [--stored FILE]

A case is timed only after its result agrees with the float64 reference. Ours and the peer run in
turns in one process; what is printed is the median of ours over the median of the peer, in CPU
time (first) and wall time. Lower is better. Peak memory is what the process grows by in one run.
"""

import argparse
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator

from benchmarks import (
    decoding,
    exact_search,
    next_token,
    output_layer,
    recipes,
    rows,
    stored,
    training_curve,
)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", nargs="+", choices=sorted([*BENCHES, "train"]))
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
    if args.data and "train" not in args.bench:
        parser.error(f"--data is for train, not for {' '.join(args.bench)}")
    runs = 3 if args.quick else args.runs
    stamp = machine()
    print(", ".join(f"{key} {value}" for key, value in stamp.items()), file=sys.stderr)
    print("\n".join(HEADER))
    results = []
    for bench in args.bench:
        if bench == "train":
            found = recipes.train(args.quick, runs, args.data)
        else:
            found = BENCHES[bench](args.quick, runs)
        for row in found:
            results.append({**row, "machine": stamp})
            print(line(row), flush=True)
            if args.json:
                write_json(args.json, results)
    if args.stored:
        print("\n".join(stored.report(results, stored.read(args.stored))))


if __name__ == "__main__":
    main()
