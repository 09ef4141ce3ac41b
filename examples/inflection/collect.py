"""Adds finished runs of run.sh to results.json and renews the tables of RESULTS.md.

python examples/inflection/collect.py --hardware "2 cores of ..." OUT [OUT ...]
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List

import torch
from report import write

import fairseq_entmax

HERE = Path(__file__).resolve().parent
REPORT = re.compile(r"^(?P<split>dev|test)-beam(?P<beam>\d+)-models(?P<models>\d+)-report\.json$")
# what makes a model; the rest of a command is the budget that it was trained with
MODEL = re.compile(
    r" --(languages|output-alpha|attention-alpha|arch|seed|gate) ('[^']*'|\S+)| --share-gate-output"
)
MARKS = "<!-- tables -->", "<!-- end of tables -->"


def rows(out: Path, hardware: str) -> Iterator[Dict[str, Any]]:
    """One for each report of a run."""
    experiment = out / "experiment.txt"
    if not experiment.is_file():
        raise SystemExit(f"{out}: no experiment.txt, so not a folder of run.sh")
    command = experiment.read_text(encoding="utf-8").strip()
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
            "hours": round(sum(map(training_seconds, models)) / 3600, 2),
            "hardware": hardware,
            "versions": f"torch {torch.__version__}, fairseq_entmax {fairseq_entmax.__version__}",
            **report,
        }


def training_seconds(folder: Path) -> float:
    """All parts of a training that was stopped and resumed."""
    paths = (folder / "checkpoint_last.pt", folder / "checkpoint_best.pt")
    checkpoint = torch.load(str(next(filter(Path.is_file, paths))), map_location="cpu")
    return checkpoint["extra_state"]["previous_training_time"]


def key(row: Dict[str, Any]) -> Any:
    return row["command"], row["split"], row["beam"], row["models"]


def option(row: Dict[str, Any], name: str) -> str:
    found = re.search(rf"--{name} (\S+)", row["command"])
    return found[1] if found else ""


def budget(row: Dict[str, Any]) -> str:
    """What runs beside each other in a table have in common: their options but the model's."""
    return " ".join(re.sub(r" --$", "", MODEL.sub("", row["command"])).split()[1:])


def model_name(row: Dict[str, Any]) -> str:
    name = option(row, "arch").replace("_entmax", "").replace("_", " ").replace("lstm", "LSTM")
    if name.startswith("two"):
        name += ", ungated" if option(row, "gate") == "none" else ", gated"
    return name + (f", ensemble of {row['models']}" if row["models"] > 1 else "")


def table(results: List[Dict[str, Any]]) -> List[str]:
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


def by_language(results: List[Dict[str, Any]]) -> List[str]:
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


def tables(results: List[Dict[str, Any]]) -> str:
    """A section for each set of languages, budget and split, its runs beside each other."""
    groups: Dict[Any, List[Dict[str, Any]]] = {}
    for row in results:
        key = len(row["languages"]), budget(row), row["split"], row["beam"]
        groups.setdefault(key, []).append(row)
    lines: List[str] = []
    for (n_languages, options, split, beam), group in sorted(groups.items()):
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
    stored, page = args.into / "results.json", args.into / "RESULTS.md"
    results = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else []
    known = {key(row): row for row in results}
    known.update((key(row), row) for out in args.outs for row in rows(out, args.hardware))
    text = page.read_text(encoding="utf-8")
    if any(text.count(mark) != 1 for mark in MARKS):
        raise SystemExit(f"{page}: the tables go between {MARKS[0]} and {MARKS[1]}, once each")
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    results = list(known.values())
    write(stored, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write(page, f"{before}{MARKS[0]}\n{tables(results)}{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
