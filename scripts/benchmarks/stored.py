"""Ratios of this run beside those of an earlier one, which need not be of the same machine."""

import json
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from benchmarks.harness import Row

FACTOR = 4 / 3  # smaller changes are the noise of a machine that others use
ALIKE = ("cpu", "flags", "threads", "torch", "kernels")  # of machines with comparable ratios
_Key = Tuple[str, str, str]


def read(path: Path) -> List[Row]:
    """Raises:
    SystemExit: not what ``--json`` writes.
    """
    try:
        rows: List[Row] = json.loads(path.read_text(encoding="utf-8"))
        keyed(rows), rows[0]["machine"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SystemExit(f"--stored {path}: not the results of a benchmark: {error}") from None
    return rows


def keyed(rows: List[Row]) -> Dict[_Key, float]:
    return {(row["bench"], row["case"], row["peer"]): row["ratio"] for row in rows}


def report(rows: List[Row], earlier: List[Row]) -> Iterator[str]:
    """What has moved by more than a third, either way, and what one of the two has not."""
    now, then = rows[0]["machine"], earlier[0]["machine"]
    yield f"\nAgainst {then['commit']} of {then['date']} on {then['cpu']}, {then['kernels']}:"
    other = [key for key in ALIKE if now[key] != then[key]]
    if other:
        yield f"another {', '.join(other)}: expect other ratios"
    before, moved = keyed(earlier), 0
    for key, ratio in keyed(rows).items():
        if key not in before:
            yield f"new: {': '.join(key[:2])} / {key[2]} {ratio:.2f}"
        elif not 1 / FACTOR <= ratio / before[key] <= FACTOR:
            moved += 1
            word = "slower" if ratio > before[key] else "faster"
            yield f"{word}: {': '.join(key[:2])} / {key[2]} {before[key]:.2f} -> {ratio:.2f}"
    yield f"{moved} of {len(rows)} moved by more than a third"
