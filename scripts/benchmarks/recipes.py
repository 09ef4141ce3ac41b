"""Whole recipes: fairseq-train against its softmax twin.

Both twins are real command lines on the same batches. They take turns: one is stopped (SIGSTOP)
while the other runs, so that what else the machine does falls on both alike. CPU time is the
process's own. Needs Linux.
"""

import json
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch

from benchmarks.corpus import prepare
from benchmarks.harness import Row, relative_error
from benchmarks.peaked import check_support, features, set_support
from benchmarks.processes import SCRIPTS, cpu_seconds, peak_mb
from fairseq_entmax.functional import entmax, linear_entmax_loss, reference

USER_DIR = Path(__file__).resolve().parents[2] / "fairseq_entmax"
VOCABULARIES = {"10k": 10000, "32k": 32000}
# also for the softmax twin: current torch cannot load its checkpoints without
PLUGIN = ["--user-dir", str(USER_DIR)]
TRAIN = [str(SCRIPTS / "fairseq-train"), *PLUGIN]
# words that are possible on average with weights like a trained model's
SUPPORTS = {"trained-like support 13": 13, "trained-like support 700": 700}

SOFTMAX = ["--arch", "transformer_iwslt_de_en", "--criterion", "cross_entropy"]
SPARSE = [
    *("--arch", "transformer_entmax_iwslt_de_en"),
    *("--criterion", "entmax_loss", "--output-alpha", "1.5"),
]
TWINS = {
    "output sparse": [*SPARSE, "--attention-alpha", "1"],
    "output and attention sparse": [*SPARSE, "--attention-alpha", "1.5"],
}


class Used(NamedTuple):
    """What some updates or sentences took."""

    count: int
    cpu_s: float
    wall_s: float
    peak_mb: float


class Training:
    """A fairseq-train command that runs only while asked to."""

    def __init__(self, folder: Path, data: Path, args: List[str]) -> None:
        self.log = folder / "log"
        self.wall_s = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(*TRAIN, str(data), "--cpu", "--seed", "1"),
            *("--save-dir", str(folder), "--no-save", "--disable-validation"),
            *("--share-all-embeddings", "--optimizer", "adam", "--max-tokens", "2048"),
            *("--num-workers", "0", "--log-format", "json", "--log-interval", "1", *args),
        ]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.losses: List[float] = []

    def advance(self, updates: int) -> Used:
        """Lets the training do that many further updates and stops it again."""
        goal = len(self.losses) + updates
        start, cpu = time.perf_counter(), cpu_seconds(self.process.pid)
        self.process.send_signal(signal.SIGCONT)
        while len(self.losses) < goal:
            if self.process.poll() is not None:
                raise SystemExit(f"fairseq-train ended early:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.01)
            self.losses = logged_losses(self.log.read_text(encoding="utf-8", errors="replace"))
        self.process.send_signal(signal.SIGSTOP)
        wall, cpu = time.perf_counter() - start, cpu_seconds(self.process.pid) - cpu
        return Used(updates, cpu, wall, peak_mb(self.process.pid))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def logged_losses(log: str) -> List[float]:
    lines = (line.partition("| train_inner | ")[2] for line in log.splitlines(keepends=True))
    return [float(json.loads(line)["loss"]) for line in lines if line.endswith("}\n")]


def train(quick: bool, runs: int, corpus: Optional[Path] = None) -> Iterator[Row]:
    """Updates of fairseq-train, from scratch and from weights with a trained model's support."""
    with tempfile.TemporaryDirectory() as folder:
        for name, size in list(VOCABULARIES.items())[: 1 if quick else None]:
            data = prepare(Path(folder) / name, size, corpus)
            for start in ("from scratch", *(list(SUPPORTS)[: 1 if quick else None])):
                case, place = f"V={name} {start}", Path(folder) / name / start.replace(" ", "-")
                yield from _train_from(place, data, case, start, runs)


def _train_from(folder: Path, data: Path, case: str, start: str, runs: int) -> Iterator[Row]:
    args = ["--lr", "5e-4"]
    if start in SUPPORTS:
        # learning rate 0: every update costs what a trained model's does, and stays there
        checkpoint = trained_like(folder, data, SUPPORTS[start])
        args = ["--lr", "0", "--finetune-from-model", str(checkpoint)]
        gate(checkpoint, data, SUPPORTS[start], case)
    recipes = {"softmax": SOFTMAX, **TWINS}
    trainings = {
        name: Training(folder / name.replace(" ", "-"), data, [*recipe, *args])
        for name, recipe in recipes.items()
    }
    used: Dict[str, List[Used]] = {name: [] for name in recipes}
    try:
        for each in trainings.values():
            each.process.send_signal(signal.SIGSTOP)
        for each in trainings.values():
            each.advance(2)  # warm-up
        for _ in range(runs):
            for name, each in trainings.items():
                used[name].append(each.advance(1))
    finally:
        for each in trainings.values():
            each.end()
    for name in TWINS:
        yield _row("train", f"{case}, {name}", used[name], used["softmax"])


def _row(bench: str, case: str, ours: List[Used], peer: List[Used]) -> Row:
    def median(clock: str, used: List[Used]) -> float:
        return statistics.median(getattr(each, clock) / each.count for each in used)

    return {
        "bench": bench,
        "case": case,
        "peer": "fairseq, softmax + cross_entropy",
        "ratio": median("cpu_s", ours) / median("cpu_s", peer),
        "wall_ratio": median("wall_s", ours) / median("wall_s", peer),
        "ours_s": median("cpu_s", ours),
        "peer_s": median("cpu_s", peer),
        "ours_peak_mb": max(each.peak_mb for each in ours),
        "peer_peak_mb": max(each.peak_mb for each in peer),
        "runs": len(ours),
    }


def trained_like(folder: Path, data: Path, support: int) -> Path:
    """Random weights of the sparse recipe whose output is as peaked as a trained model's."""
    save_dir = folder / "weights"
    subprocess.run(
        [
            *(*TRAIN, str(data), "--cpu", "--seed", "1", *SPARSE),
            *("--share-all-embeddings", "--optimizer", "adam", "--lr", "0", "--max-tokens", "64"),
            *("--max-update", "1", "--disable-validation", "--no-epoch-checkpoints"),
            *("--save-dir", str(save_dir)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = save_dir / "checkpoint_last.pt"
    model, batch = loaded(checkpoint, data)
    set_support(model, batch["net_input"], support)
    state = torch.load(checkpoint, weights_only=False)
    state["model"] = model.state_dict()
    torch.save(state, checkpoint)
    return checkpoint


def loaded(checkpoint: Path, data: Path) -> Tuple[Any, Any]:
    """The model of a checkpoint and its first sentences of validation."""
    from fairseq import checkpoint_utils  # 5 seconds

    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data)}
    )
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    return model, dataset.collater([dataset[i] for i in range(16)])


def gate(checkpoint: Path, data: Path, support: int, case: str) -> None:
    """The loss, its gradient and the probabilities on real features, against the reference.

    Raises:
        SystemExit: one of them is off, or the support is not the wanted one.
    """
    model, batch = loaded(checkpoint, data)
    check_support(model, batch["net_input"], support, case)
    x, y = features(model, batch["net_input"]).requires_grad_(), batch["target"].flatten()
    weight = model.decoder.output_projection.weight.detach()
    linear_entmax_loss(x, weight, y, 1.5, reduction="sum").backward()
    scores = x.detach().double() @ weight.double().t()
    p = reference.entmax(scores, 1.5)
    errors = {"probabilities": relative_error(entmax(scores.float(), 1.5), p)}
    p[torch.arange(len(y)), y] -= 1
    errors["gradient"] = relative_error(x.grad, p @ weight.double())
    for what, error in errors.items():
        if not error <= 1e-5:
            raise SystemExit(f"{case}: {what} off by {error:.1e}; a wrong result is not timed")
