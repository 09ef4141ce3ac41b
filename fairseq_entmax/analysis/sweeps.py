"""Tables of runs, ready to be drawn: sweeps over alpha, and validations against seconds."""

from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Sequence, Tuple

from fairseq_entmax.data.files import read_json

Row = Dict[str, Any]
_CURVES = ("curve", "peer_curve")


class Spread(NamedTuple):
    """A figure over the seeds of one pair of alphas."""

    alpha: float
    mean: float
    least: float
    most: float
    seeds: int


def read_sweep(path: Path) -> List[Row]:
    """The rows of ``sweep.json``, or of the folder of scripts/sweep_alpha.py that holds it.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    file = path / "sweep.json" if path.is_dir() else path
    rows = _read(file, "scripts/sweep_alpha.py")
    alphas = ("output_alpha", "attention_alpha")
    if not rows or not all("seed" in row and _numbers(row, alphas) for row in rows):
        raise ValueError(f"{file} is not the sweep.json of scripts/sweep_alpha.py")
    return rows


def figures_of(rows: Sequence[Row]) -> List[str]:
    """The names of the numbers that every row has."""
    shared = set.intersection(*(set(row) for row in rows)) - {"output_alpha", "attention_alpha"}
    numbers = {n for n in shared if all(isinstance(row[n], (int, float)) for row in rows)}
    return sorted(numbers - {"seed"})


def spreads(rows: Sequence[Row], figure: str) -> Dict[float, List[Spread]]:
    """For each attention alpha the figure over output alphas: mean, least and most of the seeds.

    Raises:
        ValueError: a figure that not every row has.
    """
    if figure not in figures_of(rows):
        raise ValueError(f"the sweep has no {figure!r}, but {', '.join(figures_of(rows))}")
    grouped: Dict[Tuple[float, float], List[float]] = {}
    for row in rows:
        key = (row["attention_alpha"], row["output_alpha"])
        grouped.setdefault(key, []).append(float(row[figure]))
    found: Dict[float, List[Spread]] = {}
    for (attention, output), values in sorted(grouped.items()):
        spread = Spread(output, sum(values) / len(values), min(values), max(values), len(values))
        found.setdefault(attention, []).append(spread)
    return found


def read_training_curves(path: Path) -> Dict[str, List[Row]]:
    """The validations of every twin in what ``scripts/benchmark.py training-curve --json`` wrote,
    softmax first.

    Raises:
        ValueError: there is no such file, or it holds no curve.
    """
    rows = [row for row in _read(path, "scripts/benchmark.py") if row.get("curve")]
    if not rows or not all(_is_curve(row.get(name)) for row in rows for name in _CURVES):
        raise ValueError(f"{path} holds no training-curve of scripts/benchmark.py --json")
    curves: Dict[str, List[Row]] = {str(rows[0].get("peer")): rows[0]["peer_curve"]}
    curves.update({str(row.get("case")).split(",")[0]: row["curve"] for row in rows})
    return curves


def _is_curve(points: Any) -> bool:
    """Points of the same numbers each."""
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        return False
    return bool(points) and all(
        set(point) == set(points[0]) and _numbers(point, point) for point in points
    )


def _numbers(row: Row, names: Iterable[str]) -> bool:
    return all(isinstance(row.get(name), (int, float)) for name in names)


def _read(path: Path, source: str) -> List[Row]:
    try:
        rows = read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a file of {source}: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} is not a file of {source}: expected a list of rows")
    return rows
