"""A corpus and trained models, made once per test session, whatever the number of workers."""

import fcntl
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import commands
import corpus

ARCHS = {
    "transformer": ["--arch", "transformer_entmax_tiny"],
    "lstm": [
        *("--arch", "lstm_entmax", "--encoder-embed-dim", "32", "--encoder-hidden-size", "32"),
        *("--decoder-embed-dim", "32", "--decoder-hidden-size", "32", "--decoder-out-embed-dim"),
        *("32", "--encoder-bidirectional"),
    ],
}


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Builds a folder once for all workers: ``shared(name, build)`` returns it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # without workers the parent belongs to all sessions
        base = base.parent

    def once(name, build):
        folder, done = base / name, base / f"{name}.done"
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir()
                build(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def data(shared):
    """The binarised nouns."""

    def build(folder):
        for name, pairs in corpus.noun_pairs().items():
            corpus.write(folder / "text", name, pairs)
        text = folder / "text"
        commands.run(
            *("fairseq-preprocess", "--source-lang", "sg", "--target-lang", "pl"),
            *("--trainpref", text / "train", "--validpref", text / "valid"),
            *("--testpref", f"{text / 'test'},{text / 'test1'}"),
            *("--destdir", folder / "bin", "--joined-dictionary"),
        )

    return shared("nouns", build) / "bin"


@pytest.fixture(scope="session")
def model(shared, data):
    """``model("transformer")`` or ``model("lstm")``: the folder of a model trained for long enough
    that its output is sparse, and the training's log.
    """

    def trained(name):
        def build(folder):
            log = commands.run(
                "fairseq-train",
                *train_args(data, folder, *ARCHS[name], "--max-epoch", 30, "--lr", "0.005"),
                *("--disable-validation", "--tensorboard-logdir", folder / "tensorboard"),
            )
            (folder / "train.log").write_text(log, encoding="utf-8")

        return shared(f"{name}_model", build)

    return trained


def train_args(data, save_dir, *more):
    """A short training with the flags that every one here has."""
    return [
        *(data, *commands.USER_DIR, "--task", "translation", "--save-dir", save_dir, "--cpu"),
        *("--criterion", "entmax_loss", "--optimizer", "adam", "--batch-size", 16, "--seed", 1),
        *("--no-epoch-checkpoints", "--log-format", "json", "--log-interval", 1, *more),
    ]
