"""What the collect.py of an example does: rows into results.json, tables into RESULTS.md."""

import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Pattern

import torch

import fairseq_entmax
from fairseq_entmax.data.files import read_checkpoint, read_json, write_json, write_lines

MARKS = "<!-- tables -->", "<!-- end of tables -->"

Row = Dict[str, Any]


def versions() -> str:
    return f"torch {torch.__version__}, fairseq_entmax {fairseq_entmax.__version__}"


def training_seconds(checkpoint: Path) -> float:
    """All parts of a training that was stopped and resumed."""
    state = read_checkpoint(checkpoint)
    return state["extra_state"]["previous_training_time"]


def experiment(out: Path) -> str:
    """The command of a run; of a path from the root on, only the last two parts are told.

    Raises:
        SystemExit: the folder is not one of run.sh.
    """
    path = out / "experiment.txt"
    if not path.is_file():
        raise SystemExit(f"{out}: no experiment.txt, so not a folder of run.sh")
    return re.sub(r"(?<= )/\S*/(\S+/\S+)", r"\1", path.read_text(encoding="utf-8").strip())


def option(row: Row, name: str) -> str:
    """The value of an option in the command of a run, empty if it has none."""
    found = re.search(rf" --{name} (\S+)", row["command"])
    return found[1] if found else ""


def budget(row: Row, model: Pattern[str]) -> str:
    """The options of a run without those that make the model: runs with the same compare."""
    return " ".join(re.sub(r" --$", "", model.sub("", row["command"])).split()[1:])


def add(
    into: Path,
    rows: Iterable[Row],
    key: Callable[[Row], Any],
    tables: Callable[[List[Row]], str],
) -> None:
    """Rows of the same key take each other's place; the tables are made anew from all.

    Raises:
        SystemExit: results.json has no rows, or RESULTS.md no place for tables, or more than one.
    """
    stored, page = into / "results.json", into / "RESULTS.md"
    results = _stored(stored) if stored.is_file() else []
    known = {key(row): row for row in results}
    known.update((key(row), row) for row in rows)
    text = page.read_text(encoding="utf-8")
    if any(text.count(mark) != 1 for mark in MARKS):
        raise SystemExit(f"{page}: the tables go between {MARKS[0]} and {MARKS[1]}, once each")
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    results = list(known.values())
    write_json(stored, results)
    write_lines(page, [f"{before}{MARKS[0]}\n{tables(results)}{MARKS[1]}{after}".rstrip("\n")])


def _stored(path: Path) -> List[Row]:
    try:
        rows = read_json(path)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SystemExit(f"{path}: expected a list of rows")
    return rows
