"""Folders of run.sh into results.json and the tables of RESULTS.md.

python examples/language_model/collect.py OUT [OUT ...]
"""

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any, Iterator, List

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from results import Row, add, budget, experiment, option, versions

HERE = Path(__file__).absolute().parent
MODEL = re.compile(r" --(?:output-alpha|seed) \S+")
COLUMNS = {
    **{"ppl_eps": "ppl_eps", "js": "js", "sparsemax_score": "sp", "support": "support"},
    **{"gold_in_support": "gold in support", "rep": "rep", "wrep": "wrep"},
    **{"distinct_1": "distinct-1", "distinct_3": "distinct-3", "self_bleu": "self-BLEU"},
    "length": "length",
}


def rows_of(out: Path) -> Iterator[Row]:
    """A row for each model and way to draw, and for the text itself."""
    for path in sorted(out.glob("model-*/generation.json")):
        seed = path.parent.name[len("model-") :]
        for row in json.loads(path.read_text(encoding="utf-8")):
            kept = {key: row[key] for key in COLUMNS if key in row}
            facts = {"command": experiment(out), "seed": seed, "versions": versions()}
            yield {"sampling": row["sampling"], **facts, **kept}


def key(row: Row) -> Any:
    return row["command"], row["seed"], row["sampling"]


def tables(rows: List[Row]) -> str:
    """A table for each level and budget: alphas and ways to draw below each other."""
    parts = []
    for name in sorted({budget(row, MODEL) for row in rows}):
        group = [row for row in rows if budget(row, MODEL) == name]
        lines = ["| output | drawn by | seeds | " + " | ".join(COLUMNS.values()) + " |"]
        lines += ["| --- | --- | ---: |" + " ---: |" * len(COLUMNS)]
        lines += [_line(cell) for cell in _cells(group)]
        parts.append(f"\n`run.sh {name}`, {group[0]['versions']}\n\n" + "\n".join(lines) + "\n")
    return "".join(parts)


def _cells(rows: List[Row]) -> Iterator[List[Row]]:
    """Rows that differ by their seed; the text itself, alike for all, once."""
    yield [next(row for row in rows if not row["sampling"])]
    alphas = sorted({option(row, "output-alpha") for row in rows}, key=float)
    for alpha in alphas:
        own = [row for row in rows if option(row, "output-alpha") == alpha and row["sampling"]]
        for sampling in dict.fromkeys(row["sampling"] for row in own):
            yield [row for row in own if row["sampling"] == sampling]


def _line(cell: List[Row]) -> str:
    first = cell[0]
    alpha = option(first, "output-alpha")
    name = "the text" if not first["sampling"] else "softmax" if float(alpha) == 1 else alpha
    values = [_value([row[column] for row in cell if column in row]) for column in COLUMNS]
    return f"| {name} | {first['sampling'] or '-'} | {len(cell)} | " + " | ".join(values) + " |"


def _value(numbers: List[float]) -> str:
    if not numbers:
        return "-"
    mean = statistics.fmean(numbers)
    text = f"{mean:,.0f}" if mean >= 1000 else f"{mean:.2f}" if mean >= 10 else f"{mean:.4f}"
    return text if len(numbers) < 2 else f"{text} ± {statistics.stdev(numbers):.2g}"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    add(HERE, [row for out in sys.argv[1:] for row in rows_of(Path(out))], key, tables)
