"""Two processes are --update-freq 2 in one."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from . import commands

STATISTICS = ("loss", "support", "gold_in_support", "token_accuracy", "gnorm", "bsz")
TWO = ["--distributed-world-size", 2]


def train_args(data, folder, arch, *more):
    return [
        *commands.train_args(data, folder, *commands.ARCHS[arch], "--dropout", 0),
        *("--batch-size", 8, "--max-update", 6, "--disable-validation", "--clip-norm", 1),
        *more,
    ]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def statistics(output):
    return [
        [line[name] for name in STATISTICS] for line in commands.json_logs(output, "train_inner")
    ]


def assert_same_training(alone, together, folder, arch):
    assert alone.code == 0, alone.output[-3000:]
    logged = statistics(together)  # only the first rank logs
    assert len(logged) == 6
    for ours, theirs in zip(logged, statistics(alone.output)):
        assert ours == pytest.approx(theirs, rel=2e-3)
    commands.assert_same_parameters(
        folder / arch / "checkpoint_last.pt",
        folder / f"{arch} two" / "checkpoint_last.pt",
        atol=1e-5,
    )


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """One process alone of each arch; two that one command starts, with torch's data parallel."""
    folder = tmp_path_factory.mktemp("distributed")
    jobs = {
        arch: ["fairseq-train", *train_args(data, folder / arch, arch, "--update-freq", 2)]
        for arch in commands.ARCHS
    }
    two = train_args(data, folder / "transformer two", "transformer", *TWO)
    jobs["two"] = ["fairseq-train", *two]
    return folder, commands.attempt_all(jobs, folder / "logs")


def test_one_command_starts_two_processes(finished):
    folder, jobs = finished
    assert jobs["two"].code == 0, jobs["two"].output[-3000:]
    assert_same_training(jobs["transformer"], jobs["two"].output, folder, "transformer")


def test_a_command_for_each_rank_with_legacy_data_parallel(finished, data):
    folder, jobs = finished
    gloo = [
        *(*TWO, "--distributed-no-spawn", "--ddp-backend", "legacy_ddp"),
        *("--distributed-init-method", f"tcp://127.0.0.1:{free_port()}"),
        *("--distributed-backend", "gloo"),
    ]
    ranks = [
        train_args(data, folder / "lstm two", "lstm", *gloo, "--distributed-rank", rank)
        for rank in (0, 1)
    ]
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda args: commands.run("fairseq-train", *args), ranks))
    assert_same_training(jobs["lstm"], "".join(outputs), folder, "lstm")
