"""A whole example, killed in each of its steps and started again, ends as if nothing had been."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.commands import assert_same_parameters
from tests.examples.test_translation import FOLDER, write_corpus

pytestmark = pytest.mark.faults

COMMAND = [
    *("--data", "data", "--src", "de", "--tgt", "en", "--test", "t", "--vocab", "60"),
    *(
        "--max-update",
        "40",
        "--average",
        "3",
        "--",
        "--encoder-layers",
        "1",
        "--decoder-layers",
        "1",
    ),
    *("--dropout", "0.1", "--lr", "0.003", "--disable-validation"),
]
# of a run that has got there, in its folder
STEPS = [
    "bin/dict.de.txt",
    "checkpoints/checkpoint_*_1?.pt",
    "checkpoints/*.tmp",
    "averaged.pt*",
    "test/t/beam5/generated.part",
    "test/t/validated.json",
]


def started(folder, out):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    return subprocess.Popen(
        ["bash", str(FOLDER / "run.sh"), "--out", out, *COMMAND],
        cwd=str(folder),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )


def killed_at(step, folder, out):
    """Whether the step was met; the script and all that it has started are gone."""
    process = started(folder, out)
    while process.poll() is None:
        if any((folder / out).glob(step)):
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.005)
    process.communicate()
    return False


def finished(folder, out):
    process = started(folder, out)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed[-3000:]
    result = json.loads((folder / out / "test/t/beam5/result.json").read_text(encoding="utf-8"))
    answers = (folder / out / "test/t/beam5/hypotheses").read_text(encoding="utf-8")
    return answers, {name: n for name, n in result.items() if "second" not in name}


def test_killed_in_each_of_its_steps(tmp_path):
    write_corpus(tmp_path / "data")
    expected = finished(tmp_path, "whole")
    met = [killed_at(step, tmp_path, "killed") for step in STEPS]
    assert sum(met) >= 5, met
    assert finished(tmp_path, "killed") == expected
    averaged = [tmp_path / out / "averaged.pt" for out in ("whole", "killed")]
    assert_same_parameters(*averaged, atol=0)
