"""A validation metric against seconds and against updates, from benchmark.py training-curve."""

import argparse
from pathlib import Path
from typing import Any, Dict, List

from fairseq_entmax.analysis.pictures import Picture
from fairseq_entmax.analysis.pictures.lines import Panel, Series, panels
from fairseq_entmax.analysis.sweeps import read_training_curves

from . import shared

_SECONDS = {"cpu": ("cpu_s", "processor seconds"), "wall": ("wall_s", "seconds on the wall")}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("speed", __doc__, "curves.json --out speed.svg")
    made.add_argument("file", type=Path, help="of scripts/benchmark.py training-curve --json FILE")
    made.add_argument("--metric", default="token_accuracy", help="(default: token_accuracy)")
    made.add_argument("--seconds", choices=list(_SECONDS), default="cpu", help="(default: cpu)")
    shared.add_picture(made)
    return made


def main(arguments: List[str]) -> None:
    """Draws two panels."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    curves = read_training_curves(args.file)
    key, label = _SECONDS[args.seconds]
    known = set.intersection(*(set(points[0]) for points in curves.values()))
    for name in (args.metric, key, "num_updates"):
        if name not in known:
            raise ValueError(f"the curves have no {name!r}, but {', '.join(sorted(known))}")

    def draw(theme: Any) -> Any:
        metric = args.metric.replace("_", " ")
        sides = ((key, label), ("num_updates", "updates"))
        title = {key: "for the same time", "num_updates": "for the same updates"}
        return panels(
            [Panel(title[x], name, metric, _series(curves, x, args.metric)) for x, name in sides],
            theme,
        )

    names = ", ".join(curves)
    text = f"{args.metric} at each validation against {label} and against updates: {names}."
    shared.finish(args, Picture(draw, "Validation against time", text), curves)


def _series(curves: Dict[str, List[Dict[str, float]]], x: str, y: str) -> List[Series]:
    return [
        Series(name, [(point[x], point[y]) for point in points], style=i)
        for i, (name, points) in enumerate(curves.items())
    ]
