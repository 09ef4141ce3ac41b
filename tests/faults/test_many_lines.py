"""20,000 lines through fairseq-interactive: as many answers, in their order, in flat memory."""

import random
import re
import subprocess
import sys

import pytest

from tests.cli import commands

pytestmark = pytest.mark.faults

LINES, EVERY = 20_000, 500
LONG = 300  # of every 500: longer than the model reads
STRANGE = {7: b"", 99: b"H \xff\xfe u", 301: b"H\ru n", 302: b"\x00", 303: "\u2028 H \x0c".encode()}


def lines():
    rng = random.Random(0)
    for i in range(LINES):
        n_letters = 1500 if i % EVERY == LONG else rng.randint(1, 8)
        usual = " ".join(rng.choice("Hundtages") for _ in range(n_letters)).encode()
        yield STRANGE.get(i % EVERY, usual)


def memory(process):
    """Resident, in MB."""
    with open(f"/proc/{process.pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) / 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_as_many_answers_as_lines_in_flat_memory(trained, data, tmp_path):
    text = tmp_path / "lines"
    text.write_bytes(b"".join(line + b"\n" for line in lines()))
    flags = [
        *(
            "--task",
            "translation",
            "--cpu",
            "--path",
            trained("transformer") / "checkpoint_last.pt",
        ),
        *("--beam", 1, "--max-len-a", 0, "--max-len-b", 8, "--buffer-size", EVERY),
        *("--batch-size", EVERY),
    ]
    command = [data, *commands.USER_DIR, *flags]
    numbers = {"S": [], "H": []}
    used, warnings = [], []
    with open(text, "rb") as stdin, subprocess.Popen(
        [sys.executable, "-m", "fairseq_cli.interactive", *map(str, command)],
        cwd=str(commands.REPO),
        env=commands.environment(LOGLEVEL="WARNING"),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        for line in process.stdout:
            answered = re.match(r"([SH])-(\d+)\t", line)
            if not answered:
                warnings += re.findall(r"S-\d+ (?:has no answer|is not UTF-8)", line)
                continue
            numbers[answered.group(1)].append(int(answered.group(2)))
            if answered.group(1) == "S" and len(numbers["S"]) % 2000 == 0:
                used.append(memory(process))
    assert process.returncode == 0
    expected = [i for i in range(LINES) if i % EVERY != LONG]
    assert numbers == {"S": expected, "H": expected}
    assert len(warnings) == 2 * LINES // EVERY
    assert len(used) == 9 and used[-1] < used[1] + 10
