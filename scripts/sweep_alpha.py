"""BLEU, support and speed over a grid of output and attention alphas, with seeds, as one table.

    python scripts/sweep_alpha.py --data DIR --src de --tgt en --test PREFIX --out OUT \\
        --output-alphas 1 1.5 2 --attention-alphas 1 1.5 --seeds 1 2 3 [-- options of run.sh]

Every cell is one run of examples/translation/run.sh in a folder of its own. OUT/sweep.json (a row
for each run) and OUT/sweep.md (means over the seeds) are written after each; a second call does
what is missing.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fairseq_entmax.data.files import write_json, write_lines

RUN = Path(__file__).resolve().parent.parent / "examples" / "translation" / "run.sh"
FIGURES = ("bleu", "chrf", "support", "gold_in_support", "empty", "words_per_second")

Row = Dict[str, Any]


class Cell(NamedTuple):
    """One training of the grid."""

    output_alpha: float
    attention_alpha: float
    seed: int

    @property
    def name(self) -> str:
        return f"output{self.output_alpha:g}-attention{self.attention_alpha:g}-seed{self.seed}"


def cells(args: argparse.Namespace) -> List[Cell]:
    """Seed by seed, so that an early end leaves a whole grid."""
    grid = itertools.product(args.seeds, args.output_alphas, args.attention_alphas)
    return [Cell(output, attention, seed) for seed, output, attention in grid]


def command(cell: Cell, args: argparse.Namespace, options: List[str]) -> List[str]:
    return [
        *("bash", str(RUN), "--data", str(args.data), "--src", args.src, "--tgt", args.tgt),
        *("--test", args.test, "--out", str(args.out / cell.name), "--seed", str(cell.seed)),
        *("--output-alpha", f"{cell.output_alpha:g}"),
        *("--attention-alpha", f"{cell.attention_alpha:g}", *options),
    ]


def result(cell: Cell, folder: Path, test: str) -> Row:
    """What a finished run left behind.

    Raises:
        FileNotFoundError: the run has not finished.
    """
    scores = sorted((folder / "test" / Path(test).name).glob("beam*/result.json"))
    if not scores:
        raise FileNotFoundError(folder)
    return {**cell._asdict(), **json.loads(scores[0].read_text(encoding="utf-8"))}


def table(rows: List[Row]) -> Iterator[str]:
    """Markdown, one line for each pair of alphas: mean, and +- deviation from two seeds on."""
    yield f"| output alpha | attention alpha | seeds | {' | '.join(FIGURES)} |"
    yield "| ---: | ---: | ---: |" + " ---: |" * len(FIGURES)
    grouped: Dict[Tuple[float, float], List[Row]] = {}
    for row in rows:
        grouped.setdefault((row["output_alpha"], row["attention_alpha"]), []).append(row)
    for (output, attention), group in sorted(grouped.items()):
        means = (_mean([float(row[name]) for row in group]) for name in FIGURES)
        yield f"| {output:g} | {attention:g} | {len(group)} | {' | '.join(means)} |"


def _mean(values: List[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} +- {statistics.stdev(values):.2f}"


def check_options(path: Path, options: List[str]) -> None:
    """Runs made with different options do not belong into one table.

    Raises:
        SystemExit: the folder holds a sweep with others.
    """
    if not path.exists():
        write_json(path, options)
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if found != options:
        raise SystemExit(
            f"{path.parent} holds a sweep with the options {' '.join(found)}, now they are "
            f"{' '.join(options)}: choose another --out"
        )


def main() -> None:
    arguments = [*sys.argv[1:], "--"]
    own, options = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 : -1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="as for run.sh")
    parser.add_argument("--src", required=True)
    parser.add_argument("--tgt", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs and the table")
    parser.add_argument("--output-alphas", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--attention-alphas", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    args = parser.parse_args(own)

    args.out.mkdir(parents=True, exist_ok=True)
    data = [str(args.data.resolve()), args.src, args.tgt, args.test]
    check_options(args.out / "options.json", [*data, *options])
    rows: List[Row] = []
    for cell in cells(args):
        folder = args.out / cell.name
        try:
            rows.append(result(cell, folder, args.test))
        except FileNotFoundError:
            print(f"{cell.name} ...", flush=True)
            if subprocess.run(command(cell, args, options)).returncode:
                raise SystemExit(f"{cell.name} failed; run the same command to go on") from None
            rows.append(result(cell, folder, args.test))
        write_json(args.out / "sweep.json", rows)
        write_lines(args.out / "sweep.md", table(rows))
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
