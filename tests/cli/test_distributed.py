"""Two processes are --update-freq 2 in one."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from . import commands

STATISTICS = ("loss", "support", "gold_in_support", "token_accuracy", "gnorm", "bsz")


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


@pytest.mark.parametrize("arch", list(commands.ARCHS))
def test_two_processes_are_update_freq_2(data, tmp_path, arch):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = commands.run("fairseq-train", *train_args(data, one, arch, "--update-freq", 2))

    gloo = [
        *("--distributed-world-size", 2, "--distributed-no-spawn", "--ddp-backend", "legacy_ddp"),
        *("--distributed-init-method", f"tcp://127.0.0.1:{free_port()}"),
        *("--distributed-backend", "gloo"),
    ]
    ranks = [train_args(data, two, arch, *gloo, "--distributed-rank", rank) for rank in (0, 1)]
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda args: commands.run("fairseq-train", *args), ranks))

    together = statistics("".join(outputs))  # only the first rank logs
    assert len(together) == 6
    for ours, theirs in zip(together, statistics(alone)):
        assert ours == pytest.approx(theirs, rel=2e-3)
    commands.assert_same_parameters(
        one / "checkpoint_last.pt", two / "checkpoint_last.pt", atol=1e-5
    )
