"""A corpus and trained models, made once per test session, whatever the number of workers."""

import fcntl
import os

import pytest

import fairseq_entmax  # noqa: F401, so that the tests themselves can load checkpoints

from . import commands, corpus


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """``shared(name, build)``: a folder that ``build`` fills once for all workers."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # without workers the parent belongs to all sessions
        base = base.parent

    def once(name, build):
        folder, done = base / name, base / f"{name}.done"
        with open(str(base / f"{name}.lock"), "w") as lock:
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
        text = folder / "text"
        for name, pairs in corpus.noun_pairs().items():
            corpus.write(text, name, pairs)
        commands.run(
            *("fairseq-preprocess", "--source-lang", "sg", "--target-lang", "pl"),
            *("--trainpref", text / "train", "--validpref", text / "valid"),
            *("--testpref", ",".join(str(text / name) for name in ("test", "test1", "test2"))),
            *("--destdir", folder / "bin", "--joined-dictionary"),
        )

    return shared("nouns", build) / "bin"


@pytest.fixture(scope="session")
def trained(shared, data):
    """``trained(arch)``: the folder of a model that knows the nouns, so that its output is sparse;
    in it checkpoint_last.pt, an earlier checkpoint_37_182.pt, train.log and tensorboard/.
    """

    def train(arch):
        def build(folder):
            log = commands.run(
                "fairseq-train",
                *commands.train_args(data, folder, *commands.ARCHS[arch], "--dropout", 0),
                *("--lr", 0.02 if arch == "lstm" else 0.005, "--max-update", 200),
                *("--lr-scheduler", "polynomial_decay", "--total-num-update", 200),
                *("--disable-validation", "--save-interval", 1000, "--save-interval-updates", 182),
                *("--tensorboard-logdir", folder / "tensorboard"),
            )
            (folder / "train.log").write_text(log, encoding="utf-8")

        return shared(f"{arch}_model", build)

    return train
