"""Adds finished runs of run.sh to results.json and renews the tables of RESULTS.md.

python examples/inflection/collect.py --hardware "2 cores of ..." OUT [OUT ...]
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
REPORT = re.compile(r"^(?P<split>dev|test)-beam(?P<beam>\d+)-models(?P<models>\d+)-report\.json$")
# the options that make a model
MODEL = re.compile(
    r" --(languages|output-alpha|attention-alpha|arch|seed|gate|tag-layers|language-embed-dim"
    r"|tag-summary-dim) ('[^']*'|\S+)| --share-gate-output"
)


def rows(out: Path, hardware: str) -> Iterator[Row]:
    """One for each report of a run."""
    command = experiment(out)
    reports = [(path, REPORT.match(path.name)) for path in sorted(out.glob("*-report.json"))]
    if not any(match for _, match in reports):
        raise SystemExit(f"{out}: no report yet: run.sh has not come to its end")
    for path, match in reports:
        if match is None:
            continue
        report = json.loads(path.read_text(encoding="utf-8"))
        models = sorted(out.glob("model-*"))[: int(match["models"])]
        yield {
            "command": command,
            "split": match["split"],
            "beam": int(match["beam"]),
            "models": int(match["models"]),
            "hours": round(sum(map(seconds, models)) / 3600, 2),
            "hardware": hardware,
            "versions": versions(),
            **report,
        }


def seconds(folder: Path) -> float:
    """How long a model was trained."""
    paths = (folder / "checkpoint_last.pt", folder / "checkpoint_best.pt")
    return training_seconds(next(filter(Path.is_file, paths)))


def key(row: Row) -> Any:
    return row["command"], row["split"], row["beam"], row["models"]


def model_name(row: Row) -> str:
    name = option(row, "arch").replace("_entmax", "").replace("_", " ").replace("lstm", "LSTM")
    if name.startswith("two"):
        name += ", ungated" if option(row, "gate") == "none" else ", gated"
    if option(row, "language-embed-dim"):
        name += ", language embedding"
    if option(row, "tag-summary-dim") == "0":
        name += ", no tag summary"
    return name + (f", ensemble of {row['models']}" if row["models"] > 1 else "")


def table(results: List[Row]) -> List[str]:
    lines = [
        "| model | output alpha | attention alpha | accuracy | Levenshtein | support | attended |"
        " exact | hours | seed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in results:
        mean = row["mean"]
        lines.append(
            f"| {model_name(row)} | {option(row, 'output-alpha')} | "
            f"{option(row, 'attention-alpha')} | {mean['accuracy']:.2%} | "
            f"{mean['levenshtein']:.3f} | {mean['support']:.2f} | {mean['attended']:.2f} | "
            f"{mean['exact']:.1%} | {row['hours']:.2f} | {option(row, 'seed')} |"
        )
    return lines


def by_language(results: List[Row]) -> List[str]:
    """Accuracy of every language, a column for each run."""
    names = [
        f"{model_name(r)} ({option(r, 'output-alpha')}, {option(r, 'attention-alpha')})"
        for r in results
    ]
    lines = [f"| language | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for language in results[0]["languages"]:
        cells = (f"{r['languages'][language]['accuracy']:.1%}" for r in results)
        lines.append(f"| {language} | {' | '.join(cells)} |")
    return lines


def tables(results: List[Row]) -> str:
    """A section for each set of languages, budget and split, its runs beside each other."""
    groups: Dict[Any, List[Row]] = {}
    for row in results:
        key = len(row["languages"]), budget(row, MODEL), row["split"], row["beam"]
        groups.setdefault(key, []).append(row)
    lines: List[str] = []
    for (n_languages, options, split, beam), group in sorted(groups.items()):
        group.sort(key=lambda row: (row["command"], row["models"]))
        title = f"## {n_languages} languages, {split} set, beam {beam}"
        lines += [title + (f", `{options}`" if options else ""), "", *table(group), ""]
        lines += ["Commands (before them `--data` and `--out`), and accuracy by language:", "```"]
        lines += [row["command"] for row in group] + ["```", "", *by_language(group), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outs", type=Path, nargs="*", help="--out of finished runs")
    parser.add_argument("--hardware", required=True, help="what they ran on")
    parser.add_argument("--into", type=Path, default=HERE, help="folder of RESULTS.md")
    args = parser.parse_args()
    collected = (row for out in args.outs for row in rows(out, args.hardware))
    add(args.into, collected, key, tables)


if __name__ == "__main__":
    main()
