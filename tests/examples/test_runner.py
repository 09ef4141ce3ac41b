"""What the run.py of the examples share: options, the lock on a folder, steps with logs."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from .scripts import REPO, load

runner = load("examples/runner.py")

DEFAULTS = {"out": "", "beam": "5", "quick": "no"}


def read(*arguments):
    return runner.read_options(arguments, DEFAULTS, "usage", "unknown option {}")


# ---- options


def test_options_and_flags():
    assert read() == (DEFAULTS, [])
    values, flags = read("--beam", "--out", "--quick", "--beam", "7", "--", "--fp16", "--", "--x")
    assert values == {"out": "", "beam": "7", "quick": "yes"}  # a value may look like an option
    assert flags == ["--fp16", "--", "--x"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out"], "run.sh: --out needs a value\n"),
        (["--colour", "red"], "run.sh: unknown option --colour\n"),
        (["beam"], "run.sh: unknown option beam\n"),
        (["beam=3"], "run.sh: unknown option beam=3\n"),
    ],
)
def test_wrong_options_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        read(*arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == message


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        read("--beam", "3", "--help", "--colour")
    assert ended.value.code == 0 and capsys.readouterr().out == "usage\n"


def test_numbers():
    assert [
        text for text in ("0", "08", "-1", "1.0", "", "x", "٣", "²") if runner.is_whole(text)
    ] == [
        "0",
        "08",
    ]
    good = [
        text
        for text in ("1", "1.5", "1e2", "0.9", "nan", "inf", "", "1,5")
        if runner.is_alpha(text)
    ]
    assert good == ["1", "1.5", "1e2"]


# ---- one run at a time


def assert_locked(out, capsys):
    with pytest.raises(SystemExit) as ended:
        runner.lock(out)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"run.sh: --out {out}: another run is at work there (process {os.getpid()}): "
        "choose another folder"
    )


def test_a_folder_has_one_run_at_a_time(tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    with runner.lock(out):
        assert_locked(out, capsys)
        runner.lock(tmp_path / "other").close()
    runner.lock(out).close()


def test_a_command_that_outlives_its_run_keeps_the_folder(tmp_path, capsys):
    with runner.lock(tmp_path):
        command = runner._popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert_locked(tmp_path, capsys)
    finally:
        command.kill()
        command.wait()
    runner.lock(tmp_path).close()


def test_a_file_is_no_folder(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        runner.lock(tmp_path / "file")
    assert capsys.readouterr().err == f"run.sh: --out {tmp_path}/file: File exists\n"


# ---- steps


def program(*lines, code=0):
    text = "\n".join(lines)
    return [sys.executable, "-c", f"import sys\nprint({text!r})\nsys.exit({code})"]


def test_a_log_is_of_one_command_unless_appended(tmp_path):
    log = tmp_path / "log"
    runner.logged(log, *program("first"))
    runner.logged(log, *program("second"))
    runner.logged(log, *program("third"), append=True)
    assert log.read_text() == "second\nthird\n"


def test_progress_is_shown_while_all_is_logged(tmp_path, capfd):
    echo = re.compile(rb"^step")
    runner.logged(tmp_path / "log", *program("hello", "step 1", "bye"), echo=echo)
    assert capfd.readouterr().out == "step 1\n"
    assert (tmp_path / "log").read_text() == "hello\nstep 1\nbye\n"


def test_answers_go_elsewhere(tmp_path):
    both = [sys.executable, "-c", "import sys; print('answer'); print('said', file=sys.stderr)"]
    runner.logged(tmp_path / "log", *both, output=tmp_path / "answers")
    assert (tmp_path / "log").read_text() == "said\n"
    assert (tmp_path / "answers").read_text() == "answer\n"


@pytest.mark.parametrize("echo", [None, "step"])
def test_the_end_of_a_failed_log_is_shown(tmp_path, capfd, echo):
    log = tmp_path / "log"
    lines = [f"line {i}" for i in range(30)]
    with pytest.raises(SystemExit) as ended:
        pattern = echo and re.compile(echo.encode())
        runner.logged(log, *program(*lines, code=3), echo=pattern)
    assert ended.value.code == 2
    name = os.path.basename(sys.executable)
    last = f"run.sh: {name} failed, the whole log is {log}"
    assert capfd.readouterr().err.splitlines() == [*lines[-20:], last]
    assert log.read_text().splitlines() == lines


def test_once(tmp_path):
    done = []
    for _ in range(2):
        runner.once(tmp_path / "mark", lambda: done.append(1))
    with pytest.raises(ZeroDivisionError):
        runner.once(tmp_path / "other", lambda: 1 / 0)
    assert done == [1] and not (tmp_path / "other").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_stops_its_command(tmp_path, number):
    """The command keeps writing to a file as long as it lives."""
    beat = (
        "import time, sys\nwhile True:\n    open(sys.argv[1], 'a').write('x')\n    time.sleep(0.02)"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(REPO / 'examples')!r})\n"
        "import runner\n"
        f"runner.run(lambda _: runner.show('-c', {beat!r}, 'beats'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=str(tmp_path))
    beats = tmp_path / "beats"
    end = time.monotonic() + 60
    while not beats.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    length = beats.stat().st_size
    time.sleep(0.2)
    assert beats.stat().st_size == length
