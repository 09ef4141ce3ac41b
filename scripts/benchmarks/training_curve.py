"""Validation accuracy against seconds for twins that differ in alpha alone: the data of a figure.

Each twin is one ``fairseq-train`` in a process of its own; at every validation the seconds on the
wall and on the processor that it has used are read. Trained is on the demo's inflection data, or
on a folder of fairseq-preprocess that FAIRSEQ_ENTMAX_BENCH_DATA names.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from .harness import Row
from .processes import SCRIPTS, cpu_seconds, peak_mb

ROOT = Path(__file__).resolve().parents[2]
DATA = "FAIRSEQ_ENTMAX_BENCH_DATA"
TWINS = {"softmax": 1.0, "1.5-entmax": 1.5, "sparsemax": 2.0}
UPDATES, VALIDATIONS = 1000, 20

Point = Dict[str, float]


class Twin(NamedTuple):
    """One training: a point for each validation, and the peak of the memory."""

    points: List[Point]
    peak_mb: float


def demo_data(folder: Path) -> Path:
    """German nouns and Russian verbs, binarised; needs the packages of the extra [demo]."""
    prepare = ROOT / "examples" / "demo" / "prepare.py"
    subprocess.run([sys.executable, str(prepare), str(folder)], check=True, stdout=sys.stderr)
    subprocess.run(
        [
            *(str(SCRIPTS / "fairseq-preprocess"), "--joined-dictionary"),
            *("-s", "lemma", "-t", "form"),
            *("--trainpref", str(folder / "train"), "--validpref", str(folder / "valid")),
            *("--destdir", str(folder / "bin")),
        ],
        check=True,
        stdout=sys.stderr,
        stderr=subprocess.DEVNULL,
    )
    return folder / "bin"


def train_command(data: Path, alpha: float, updates: int, validations: int) -> List[str]:
    recipe = (ROOT / "examples/translation/recipes/transformer.args").read_text(encoding="utf-8")
    flags = [w for line in recipe.splitlines() if not line.startswith("#") for w in line.split()]
    every = str(max(1, updates // validations))
    return [
        *(str(SCRIPTS / "fairseq-train"), str(data), "--user-dir", str(ROOT / "fairseq_entmax")),
        *("--task", "translation", "--cpu", "--seed", "1", "--num-workers", "0", *flags),
        *("--criterion", "entmax_loss", "--output-alpha", str(alpha)),
        *("--attention-alpha", str(alpha), "--optimizer", "adam", "--adam-betas", "(0.9,0.98)"),
        *("--lr-scheduler", "polynomial_decay", "--warmup-updates", str(updates // 10)),
        *("--total-num-update", str(updates), "--max-update", str(updates)),
        *("--max-tokens", "2048", "--no-save", "--log-format", "json", "--log-interval", "1000000"),
        *("--validate-interval", "1000000", "--validate-interval-updates", every),
    ]


def train(command: List[str]) -> Twin:
    """Runs a training and measures it at each validation.

    Raises:
        SystemExit: it failed; what it printed last is shown.
    """
    begun, points, peak, tail = time.perf_counter(), [], 0.0, [""]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail = [*tail[-20:], line]
            found = re.search(r"\| valid \| (\{.*\})", line)
            if found:
                peak = peak_mb(process.pid)
                points.append(_point(json.loads(found.group(1))))
                points[-1]["cpu_s"] = cpu_seconds(process.pid)
                points[-1]["wall_s"] = time.perf_counter() - begun
    if process.returncode or not points:
        raise SystemExit(f"training-curve: fairseq-train failed\n{''.join(tail)}")
    return Twin(points, peak)


def _point(logged: Dict[str, Any]) -> Point:
    names = ("num_updates", "token_accuracy", "support")
    return {name: float(logged[f"valid_{name}"]) for name in names}


def seconds_to(points: List[Point], accuracy: float) -> Optional[float]:
    """Processor seconds until a validation reaches an accuracy; None if none does."""
    reached = [p["cpu_s"] for p in points if p["token_accuracy"] >= accuracy]
    return reached[0] if reached else None


def training_curve(quick: bool, runs: int) -> Iterator[Row]:
    """A row for each sparse twin: its curve and softmax's; ratios for the same updates.

    ``to_peer_accuracy`` is the ratio of processor seconds until softmax's last accuracy, None if
    it was not reached. One training stands for all ``runs``: it takes thousands of steps.
    """
    updates, validations = (20, 2) if quick else (UPDATES, VALIDATIONS)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(os.environ[DATA]) if DATA in os.environ else demo_data(Path(folder))
        twins = {
            name: train(train_command(data, alpha, updates, validations))
            for name, alpha in TWINS.items()
        }
    peer = twins.pop("softmax")
    end = peer.points[-1]
    goal = end["token_accuracy"]
    for name, twin in twins.items():
        last = twin.points[-1]
        reached = seconds_to(twin.points, goal), seconds_to(peer.points, goal)
        yield {
            "bench": "training-curve",
            "case": f"{name}, {updates} updates",
            "peer": "softmax",
            "ratio": last["cpu_s"] / end["cpu_s"],
            "wall_ratio": last["wall_s"] / end["wall_s"],
            "to_peer_accuracy": reached[0] / reached[1] if all(reached) else None,
            "ours_s": last["cpu_s"],
            "peer_s": end["cpu_s"],
            "ours_peak_mb": twin.peak_mb,
            "peer_peak_mb": peer.peak_mb,
            "runs": 1,
            "curve": twin.points,
            "peer_curve": peer.points,
        }
