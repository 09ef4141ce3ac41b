"""How commands end that were asked for what cannot be: exit code and last line."""

import sys

import pytest
import torch

from fairseq_entmax import __main__ as programs
from fairseq_entmax.compat import REPAIRS, endings
from fairseq_entmax.data import shards
from fairseq_entmax.functional import entmax
from tests.cli import commands
from tests.examples.scripts import load

from . import hostile, wrong

READERS = {
    "translation": load("examples/translation/run.py").read_options,
    "inflection": load("examples/inflection/run.py").read_options,
    "transduction": load("examples/transduction/options.py").read,
}


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


def interrupted():
    raise KeyboardInterrupt


def test_ctrl_c_is_one_line(hook, capsys, monkeypatch):
    run = hook("/venv/bin/fairseq-train")
    with pytest.raises(SystemExit) as ended:
        run(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "fairseq-train: stopped\n")

    monkeypatch.setenv(endings.TRACEBACK, "1")
    run(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr() == ("stock KeyboardInterrupt\n", "")


def test_ctrl_c_of_a_program_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(shards, "read_shard", lambda *_: interrupted())
    with pytest.raises(SystemExit) as ended:
        programs.main(["merge", __file__])
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "fairseq-entmax merge: stopped\n")


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


# ---- a table of wrong command lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where {tmp} is: a file that is no checkpoint, and others that are torn or hostile."""
    path = tmp_path_factory.mktemp("wrong")
    (path / "text.pt").write_text("no checkpoint\n")
    (path / "broken.pt").write_bytes(b"PK\x03\x04" + bytes(500))
    for name in ("protocol 4", "zip bomb"):
        hostile.FILES[name](path / f"{name}.pt")
    return path


@pytest.fixture(scope="module")
def refused_commands(data, folder, request, tmp_path_factory):
    """Each command line of TRAIN and GENERATE, in a process of its own."""
    paths = request.getfixturevalue("trained")("transformer") / "checkpoint_last.pt"
    for name in wrong.HOSTILE:
        state = torch.load(str(paths), map_location="cpu")
        hostile.REFUSED[name][0](state)
        torch.save(state, str(folder / f"{name}.pt"))
    train = ["fairseq-train", *commands.train_args(data, folder / "model", "--num-workers", 0)]
    generate = ["fairseq-generate", data, *commands.USER_DIR, "--cpu", "--path", paths]
    jobs = {}
    for table, usual in ((wrong.TRAIN, train), (wrong.GENERATE, generate)):
        for name, (arguments, _) in table.items():
            jobs[name] = [*usual, *(word.format(tmp=folder) for word in arguments)]
    return commands.attempt_all(jobs, tmp_path_factory.mktemp("logs"), "fairseq_entmax")


@pytest.mark.parametrize("name", [*wrong.TRAIN, *wrong.GENERATE])
def test_fairseq_commands(refused_commands, folder, name):
    code, output = refused_commands[name]
    last = output.strip().splitlines()[-1]
    said = {**wrong.TRAIN, **wrong.GENERATE}[name][1].format(tmp=folder)
    assert said in last and code == 2 and "Traceback" not in output
    assert last.startswith("fairseq-train: error: " if name in wrong.TRAIN else "fairseq-generate")
    assert "H-0" not in output and not (commands.REPO / "pwned").exists()
    assert not commands.json_logs(output, "train_inner")


RUNS = [(example, *case) for example, cases in wrong.RUN.items() for case in cases]


@pytest.mark.parametrize(("example", "arguments", "line"), RUNS)
def test_run_scripts(folder, capsys, example, arguments, line):
    with pytest.raises(SystemExit) as ended:
        READERS[example]([word.format(tmp=folder) for word in arguments])
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"run.sh: {line.format(tmp=folder)}\n")


@pytest.mark.parametrize(("arguments", "line"), wrong.PROGRAMS)
def test_programs(folder, capsys, arguments, line):
    with pytest.raises(SystemExit) as ended:
        programs.main([word.format(tmp=folder) for word in arguments])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert line.format(tmp=folder) in printed.err.splitlines()[-1] and printed.out == ""
