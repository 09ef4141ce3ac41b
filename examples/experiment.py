"""One experiment in one folder: its settings, and the models that it trains one after another."""

import shutil
import time
from pathlib import Path
from typing import Callable, List

import runner
from runner import fail, logged, say


def check_settings(out: Path, command: str, data: str) -> None:
    """A folder holds one experiment on one corpus; others may have it while nothing is trained."""
    for name, line, other in (
        ("experiment.txt", command, "another experiment (see its experiment.txt)"),
        ("data.txt", data, "an experiment on other data"),
    ):
        path = out / name
        if path.is_file() and path.read_text(encoding="utf-8") != f"{line}\n":
            if any(out.glob("model-*/checkpoint*")):
                fail(f"{out} holds {other}: choose another --out")
            for folder in (out / "text", out / "bin", *out.glob("model-*")):
                shutil.rmtree(folder, ignore_errors=True)
        runner.write_lines(path, [line])


def train(
    out: Path,
    first_seed: int,
    count: int,
    updates: int,
    command: Callable[[int, Path], List[str]],
    **log_options: object,
) -> List[Path]:
    """Trains what is not trained yet, a model for each seed.

    Args:
        command: of a seed and the folder of its model.
        log_options: of :func:`runner.logged`.

    Returns:
        The checkpoints that are used.
    """
    folders = [out / f"model-{seed}" for seed in range(first_seed, first_seed + count)]
    for number, folder in enumerate(folders):
        if (folder / ".done").exists():
            continue
        folder.mkdir(exist_ok=True)
        log = folder / "train.log"
        say(f"training {number + 1} of {count}: {updates} updates, log in {log}")
        begun = time.monotonic()
        logged(log, *command(first_seed + number, folder), append=True, **log_options)
        runner.write_lines(folder / ".done", [str(int(time.monotonic() - begun))])
    return [folder / "checkpoint_best.pt" for folder in folders]
