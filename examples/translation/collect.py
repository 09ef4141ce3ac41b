"""Adds finished runs of run.sh to results.json and renews the tables of RESULTS.md.

python examples/translation/collect.py --corpus multi30k --hardware "a core of ..." OUT [OUT ...]
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from results import Row, add, budget, experiment, option, training_seconds, versions

HERE = Path(__file__).resolve().parent
# the options that make a model
MODEL = re.compile(
    r" --(src|tgt|recipe|output-alpha|attention-alpha|attention-temperature|label-smoothing"
    r"|label-smoothing-prior|seed) \S+| --learn-attention-alpha"
)
COLUMNS = (
    *("model", "output alpha", "attention alpha", "beam", "BLEU", "chrF"),
    *("words", "recall <10", "recall <50", "support", "gold in support", "empty"),
    *("words/s", "training", "seed"),
)


def rows(out: Path, corpus: str, hardware: str) -> Iterator[Row]:
    """One for each test set and beam of a run."""
    command = experiment(out)
    found = sorted(out.glob("test/*/beam*/result.json"))
    if not found:
        raise SystemExit(f"{out}: no result.json yet: run.sh has not come to its end")
    for path in found:
        yield {
            "command": command,
            "corpus": corpus,
            "test": path.parent.parent.name,
            "beam": int(path.parent.name[len("beam") :]),
            **json.loads(path.read_text(encoding="utf-8")),
            "training_seconds": round(training_seconds(out / "averaged.pt")),
            "hardware": hardware,
            "versions": versions(),
        }


def key(row: Row) -> Any:
    return row["command"], row["corpus"], row["test"], row["beam"]


def model_name(row: Row) -> str:
    name = option(row, "recipe").replace("lstm", "LSTM").replace("_", " ")
    smoothing = option(row, "label-smoothing")
    if float(smoothing or 0):
        name += f", {option(row, 'label-smoothing-prior') or 'uniform'} smoothing {smoothing}"
    temperature = option(row, "attention-temperature")
    if temperature:
        name += f", attention temperature {temperature}"
    return name + (", learned alphas" if "--learn-attention-alpha" in row["command"] else "")


def recall(row: Row, band: str) -> str:
    """Empty for runs that were scored without, and for a test set without such words."""
    value = row.get("recall", {}).get(band)
    return "" if value is None else f"{value:.1%}"


def line(row: Row) -> str:
    cells = (
        *(model_name(row), option(row, "output-alpha"), option(row, "attention-alpha")),
        *(row["beam"], f"{row['bleu']:.2f}", f"{row['chrf']:.2f}"),
        *(row.get("words", ""), recall(row, "<10"), recall(row, "<50")),
        *(f"{row['support']:.1f}", f"{row['gold_in_support']:.1%}", row["empty"]),
        f"{row['words_per_second']:.0f}",
        *(f"{row['training_seconds'] / 60:.0f} min", option(row, "seed")),
    )
    return f"| {' | '.join(map(str, cells))} |"


def tables(results: List[Row]) -> str:
    """A section for each pair of languages, test set and budget, its runs beside each other."""
    groups: Dict[Any, List[Row]] = {}
    for row in results:
        pair = f"{option(row, 'src')}-{option(row, 'tgt')}"
        groups.setdefault((row["corpus"], pair, row["test"], budget(row, MODEL)), []).append(row)
    lines: List[str] = []
    for (corpus, pair, test, options), group in sorted(groups.items()):
        group.sort(key=lambda row: (row["command"], row["beam"]))
        lines += [f"## {corpus} {pair}, {test}", "", f"| {' | '.join(COLUMNS)} |"]
        lines += ["| --- |" + " ---: |" * (len(COLUMNS) - 1), *map(line, group), ""]
        first = group[0]
        lines += [f"{first['lines']} lines, `{options}`, {first['signature']}. Commands:", "```"]
        lines += [*dict.fromkeys(row["command"] for row in group), "```", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outs", type=Path, nargs="*", help="--out of finished runs")
    parser.add_argument("--corpus", required=True, help="name of the corpus of these runs")
    parser.add_argument("--hardware", required=True, help="what they ran on")
    parser.add_argument("--into", type=Path, default=HERE, help="folder of RESULTS.md")
    args = parser.parse_args()
    collected = (row for out in args.outs for row in rows(out, args.corpus, args.hardware))
    add(args.into, collected, key, tables)


if __name__ == "__main__":
    main()
