"""A file that exists is complete, whatever stops the program that writes it."""

import json
import subprocess
import sys

import pytest

from fairseq_entmax.data.files import unfinished, whole, write_json, write_lines


def test_lines_end_with_a_line_feed(tmp_path):
    write_lines(tmp_path / "f", (text for text in ("ä", "", "a\u2028b")))
    assert (tmp_path / "f").read_bytes() == "ä\n\na\u2028b\n".encode()
    write_lines(tmp_path / "f", [])
    assert (tmp_path / "f").read_bytes() == b""


def test_json_keeps_its_letters(tmp_path):
    write_json(tmp_path / "f", {"ж": [1, None]})
    text = (tmp_path / "f").read_text(encoding="utf-8")
    assert json.loads(text) == {"ж": [1, None]} and "ж" in text


class Stopped(BaseException):
    """Like KeyboardInterrupt."""


def broken():
    yield "new"
    raise Stopped


def test_what_was_there_stays_if_writing_stops(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(Stopped):
        write_lines(path, broken())
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["f"]
    with pytest.raises(Stopped), whole(path):
        raise Stopped  # before anything is written
    assert path.read_text() == "old"


def test_nothing_is_seen_before_the_end(tmp_path):
    with whole(tmp_path / "f") as part:
        part.write_text("new")
        assert part == unfinished(tmp_path / "f") and not (tmp_path / "f").exists()
    assert (tmp_path / "f").read_text() == "new" and not part.exists()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_lines(tmp_path / "nowhere" / "f", ["x"])


def test_a_full_disk(tmp_path):
    """The limit on the size of a file stands for it, in a process of its own."""
    (tmp_path / "f").write_text("old")
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from fairseq_entmax.data.files import write_lines\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "write_lines(Path(sys.argv[1]), ['x' * 1000] * 1000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "f")], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("OSError")
    assert (tmp_path / "f").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
