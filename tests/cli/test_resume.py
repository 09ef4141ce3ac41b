"""Training that is killed and resumed is the unbroken training."""

import json
import signal
import subprocess

from . import commands

SAVED, KILLED, LAST = 62, 63, 124  # updates; 5 make an epoch, so the save is within one
STATISTICS = ("loss", "support", "gold_in_support", "token_accuracy", "gnorm", "lr")


def train_args(data, folder):
    return [
        *commands.train_args(data, folder, *commands.ARCHS["transformer"]),
        *("--max-update", LAST, "--save-interval-updates", SAVED, "--save-interval", 1000),
        *("--disable-validation", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", 40),
        *("--warmup-init-lr", 1e-7),
    ]


def statistics(output):
    """Update -> what was logged."""
    return {
        line["num_updates"]: {name: line[name] for name in STATISTICS}
        for line in commands.json_logs(output, "train_inner")
    }


def test_killed_training_resumes_as_if_unbroken(data, tmp_path):
    unbroken = statistics(commands.run("fairseq-train", *train_args(data, tmp_path / "unbroken")))
    assert list(unbroken) == list(range(1, LAST + 1))

    broken = tmp_path / "broken"
    process = subprocess.Popen(
        commands.argv("fairseq-train", *train_args(data, broken)),
        cwd=str(commands.REPO),
        env=commands.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if f'"num_updates": "{KILLED}"' in line:
            process.kill()
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    before = statistics("".join(lines))
    assert list(before) == list(range(1, KILLED + 1))

    after = statistics(commands.run("fairseq-train", *train_args(data, broken)))
    assert list(after) == list(range(SAVED + 1, LAST + 1))
    assert {**before, **after} == unbroken, json.dumps([before, after, unbroken])
    commands.assert_same_parameters(
        tmp_path / "unbroken" / "checkpoint_last.pt", broken / "checkpoint_last.pt", atol=0
    )
