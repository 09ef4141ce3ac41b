"""A training that is stopped or killed, at any moment, goes on from a whole checkpoint."""

import signal
import subprocess

import pytest

from fairseq_entmax.compat.copies import is_whole
from tests.cli import commands

pytestmark = pytest.mark.faults

LOG = '"num_updates"'


def started(data, folder):
    arguments = commands.train_args(
        *(data, folder, *commands.ARCHS["transformer"], "--max-update", 100_000),
        *("--save-interval-updates", 3, "--disable-validation", "--keep-interval-updates", 1),
        *("--batch-size", 4, "--num-workers", 0),
    )
    return subprocess.Popen(
        commands.argv("fairseq-train", *arguments),
        cwd=str(commands.REPO),
        env=commands.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def stop(process, number, after):
    """Sends a signal after so many logged updates; returns all that was printed."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if sum(LOG in seen for seen in lines) == after:
            process.send_signal(number)
            break
    lines += process.stdout.readlines()
    process.wait(timeout=60)
    return lines


def assert_all_whole(folder):
    found = list(folder.glob("*.pt"))
    assert all(is_whole(str(path)) for path in found)
    return {path.name for path in found}


def test_killed_and_stopped_again_and_again(data, tmp_path):
    folder = tmp_path / "model"
    for after in (4, 1, 2, 3, 5, 7):  # logged updates: saving takes about half of the time
        process = started(data, folder)
        lines = stop(process, signal.SIGKILL, after)
        assert process.returncode == -signal.SIGKILL, "".join(lines[-20:])
        assert "checkpoint_last.pt" in assert_all_whole(folder)

    process = started(data, folder)
    lines = stop(process, signal.SIGINT, 2)
    assert process.returncode == 130
    assert lines[-1] == "fairseq-train: stopped\n"
    assert not any("Traceback" in line for line in lines)
    assert any("Loaded checkpoint" in line for line in lines)
    assert_all_whole(folder)
