"""How commands end that were asked for what cannot be: exit code and last line."""

import sys

import pytest

from fairseq_entmax.compat import REPAIRS, endings
from fairseq_entmax.functional import entmax
from tests.cli import commands


@pytest.fixture
def hook(monkeypatch):
    """``hook(file)``: the excepthook of a command that was started as this file."""

    def install(file):
        monkeypatch.setattr(sys.modules["__main__"], "__file__", file, raising=False)
        monkeypatch.setattr(sys, "excepthook", lambda kind, *_: print(f"stock {kind.__name__}"))
        monkeypatch.delenv(endings.TRACEBACK, raising=False)
        for repair in REPAIRS:
            if repair.name == "end_in_one_line" and repair.needed():
                repair.apply()
        return sys.excepthook

    return install


def raised(function):
    try:
        function()
    except Exception:
        return sys.exc_info()


def refused():
    entmax([1.0])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("/venv/bin/fairseq-train", "fairseq-train"),
        ("/site/fairseq_cli/generate.py", "fairseq-generate"),
    ],
)
def test_a_refusal_is_one_line(hook, capsys, monkeypatch, file, name):
    run = hook(file)
    with pytest.raises(SystemExit) as ended:
        run(*raised(refused))
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"{name}: error: scores must be a tensor, got list\n")

    monkeypatch.setenv(endings.TRACEBACK, "1")
    run(*raised(refused))
    assert capsys.readouterr() == ("stock ValueError\n", "")


@pytest.mark.parametrize(
    "function", [lambda: int("x"), lambda: {}["x"]], ids=["value of others", "key"]
)
def test_other_errors_keep_their_traceback(hook, capsys, function):
    hook("/venv/bin/fairseq-train")(*raised(function))
    assert capsys.readouterr().out.startswith("stock ")


@pytest.mark.parametrize("file", ["/home/a/my_script.py", "/site/fairseq_cli_of_mine/train.py"])
def test_programs_of_others_are_left_alone(hook, capsys, file):
    hook(file)(*raised(refused))
    assert capsys.readouterr().out == "stock ValueError\n"


def test_a_command_ends_so():
    """A real process: Python ends with the exit code, and what it has to do at its end is done."""
    done = commands.attempt(
        *("fairseq-train", *commands.USER_DIR, "--arch", "transformer_entmax"),
        *("--criterion", "entmax_loss", "--label-smoothing", 2, "--cpu", "--task", "dummy_mt"),
        *("--max-tokens", 100),
    )
    assert done.code == 2 and "Traceback" not in done.output
    last = done.output.strip().splitlines()[-1]
    assert last == "fairseq-train: error: --label-smoothing must lie in [0, 1), got 2.0"
