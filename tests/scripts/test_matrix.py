"""scripts/matrix.py: the page gets the rows that were tried, and what failed says how."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "matrix.py"


def matrix(*args):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )


def keep(out, row, **result):
    (out / row).mkdir(parents=True)
    (out / row / "result.json").write_text(json.dumps(result), encoding="utf-8")


def test_the_table_of_a_page_is_replaced_by_the_rows_that_were_tried(tmp_path):
    works = {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6", "kernels": "C"}
    keep(tmp_path, "3.11", outcome="trains", date="2026-12-01", **works)
    keep(tmp_path, "like-main", outcome="fails: no such wheel", date="2026-12-02")
    page = tmp_path / "page.md"
    page.write_text("# Versions\n\n<!-- table -->\nold\n<!-- end of the table -->\n\nrest\n")
    done = matrix("--out", tmp_path, "--table", page, "3.11", "like-main")
    assert done.returncode == 0, done.stdout
    lines = page.read_text(encoding="utf-8").splitlines()
    assert "old" not in lines and lines[0] == "# Versions" and lines[-1] == "rest"
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| 3")]
    assert [(row[1], row[3], row[6], row[7]) for row in rows] == [
        ("3.11.7", "2.13.0", "trains", "2026-12-01"),
        ("3.11", "2.13.0", "fails: no such wheel", "2026-12-02"),
    ]


def test_a_row_that_is_not_there_is_refused(tmp_path):
    done = matrix("--out", tmp_path, "3.99")
    assert done.returncode == 2 and "no such row: 3.99" in done.stdout
