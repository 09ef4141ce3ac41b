"""A file that carries its name is whole, wherever the program that writes it was stopped."""

import ast
import shutil
import signal
import time

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary

from fairseq_entmax.data.files import whole, write_json, write_lines
from fairseq_entmax.data.inflection import DataError
from fairseq_entmax.decoding.certificate import Certificate
from fairseq_entmax.decoding.report import SearchLog
from fairseq_entmax.transduction import folder as transducers
from tests.examples.scripts import REPO, load

from .dying import DISK_FULL, die_at, die_instead_of, in_child

STATE = {"args": None, "cfg": None, "extra_state": {"epoch": 1}}
HYPOTHESIS = {"tokens": torch.tensor([4, 2]), "positional_scores": torch.zeros(2), "score": 0.0}


def once(path, text):
    """A source is there before the size of files is limited."""
    if not path.exists():
        path.write_text(text)
    return path


def trained(folder, value):
    path = folder / f"checkpoint{value}.pt"
    if not path.exists():
        torch.save({**STATE, "model": {"a": torch.full((3000,), float(value))}}, str(path))
    return path


def _checkpoint(folder, value):
    state = {**STATE, "model": {"a": torch.full((3000,), value)}}
    checkpoint_utils.torch_persistent_save(state, str(folder / "checkpoint1.pt"))


def _copy(folder, value):
    source = once(folder.parent / f"source-{value}.pt", f"{value}" * 5000)
    target = str(folder / "checkpoint_last.pt")
    assert checkpoint_utils.PathManager.copy(str(source), target, overwrite=True)


def _average(folder, value):
    average = load("examples/translation/average.py")
    source = trained(folder.parent, value)
    with whole(folder / "averaged.pt") as part:
        torch.save(average.average([source]), str(part))


def _results(folder, value):
    write_json(folder / "results.json", {"accuracy": [value] * 2000})


def _predictions(folder, value):
    write_lines(folder / "deu.tsv", [f"Hund\tHunde\t{value}"] * 2000)


def _page(folder, value):
    write_lines(folder / "report.html", [f"<p>{value}</p>" * 2000])


def _search(folder, value):
    """The report and the trees of one batch."""
    words = Dictionary()
    words.add_symbol("x")
    report, tree = str(folder / "report.json"), str(folder / "tree.jsonl")
    log = SearchLog(False, report, tree, {"setting": value}, words)
    certificate = Certificate("beam", True, 1, True, 1.0, 0.0, -9.0, 3, value, 0.0)
    sentences = [[{**HYPOTHESIS, "certificate": certificate}]] * 20
    log.add(list(range(20)), sentences)
    log.finish()


def _transducer(folder, value):
    data = folder.parent / f"data{value}"
    data.mkdir(exist_ok=True)
    for side in ("source", "target"):
        once(data / f"dict.{side}.txt", f"a {value}\n" * 500)
    once(data / "spelling.json", "{}")
    settings = transducers.Settings("g2p", (str(value),))
    transducers.write(folder, data, [trained(folder.parent, value)], settings)


WRITERS = [_checkpoint, _copy, _average, _results, _predictions, _page, _search, _transducer]
every_writer = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__[1:])
UNFINISHED = (".part", ".tmp")
OLD, NEW = 1, 2


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def wanted(write, base):
    """The new files."""
    scratch = base / "scratch"
    scratch.mkdir()
    assert in_child(lambda: write(scratch, NEW)) == 0
    return contents(scratch)


@pytest.fixture
def case(tmp_path, monkeypatch):
    """``case(write)``: a folder with its old files, these, and the new ones."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # fairseq tries three times

    def make(write):
        folder = tmp_path / "out"
        folder.mkdir()
        new = wanted(write, tmp_path)
        assert in_child(lambda: write(folder, OLD)) == 0
        return folder, contents(folder), new

    return make


def torn(folder, old, new):
    """Names of files that are neither the old ones nor the new ones, unfinished ones aside."""
    return [
        name
        for name, content in contents(folder).items()
        if not name.endswith(UNFINISHED) and content not in (old.get(name), new.get(name))
    ]


def limits(new):
    """Sizes that a file of these reaches while it is written."""
    largest = max(map(len, new.values()))
    return [0, 1, largest // 3, 2 * largest // 3, largest - 1]


def assert_recovers(write, folder, new):
    assert in_child(lambda: write(folder, NEW)) == 0
    assert contents(folder) == new


@every_writer
def test_killed_inside_a_write(write, case):
    """The process is gone in the middle of write(2): no handler of Python runs."""
    folder, old, new = case(write)
    for limit in limits(new):
        code = in_child(lambda: write(folder, NEW), limit, dies=True)
        assert code == -signal.SIGXFSZ
        assert torn(folder, old, new) == []
        assert set(old) <= set(contents(folder))
    assert_recovers(write, folder, new)


@every_writer
def test_killed_before_a_file_gets_its_name(write, case):
    folder, old, new = case(write)

    def work():
        die_instead_of("rename", "replace")
        write(folder, NEW)

    assert in_child(work) == -signal.SIGKILL
    assert torn(folder, old, new) == []
    assert_recovers(write, folder, new)


@every_writer
def test_a_full_disk(write, case):
    folder, old, new = case(write)
    for limit in limits(new):
        assert in_child(lambda: write(folder, NEW), limit) == DISK_FULL
        assert torn(folder, old, new) == []
    assert_recovers(write, folder, new)


def test_a_folder_of_models_is_never_a_mix(case):
    """Killed at each of its renames: the old files, the new ones, or a folder that is refused."""
    folder, old, new = case(_transducer)
    n_refused = 0
    for call in range(len(new)):

        def work(call=call):
            die_at(call, "replace")
            _transducer(folder, NEW)

        assert in_child(work) == -signal.SIGKILL
        found = {n: c for n, c in contents(folder).items() if not n.endswith(UNFINISHED)}
        if found not in (old, new):
            n_refused += 1
            with pytest.raises(DataError, match=r"transducer\.json: No such file"):
                transducers.read_settings(folder)
        shutil.rmtree(str(folder))
        folder.mkdir()
        for name, content in old.items():
            (folder / name).write_bytes(content)
    assert n_refused > 1
    assert_recovers(_transducer, folder, new)


# ---- nothing else is written in place

# logs, which grow, and the lock
IN_PLACE = {
    ("examples/demo/progress.py", "main"),
    ("examples/runner.py", "lock"),
    ("examples/runner.py", "logged"),
}


def _writes(call):
    """Whether a call opens a file for writing, or fills one."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr in ("write_text", "write_bytes", "copyfile")
    if not (isinstance(function, ast.Name) and function.id == "open" and len(call.args) > 1):
        return False
    mode = call.args[1]
    return not isinstance(mode, ast.Constant) or bool(set("wax+") & set(mode.value))


def _is_unfinished(call):
    named = " ".join(ast.dump(node) for node in (*call.args, call.func))
    return "id='part'" in named or "id='unfinished'" in named


def test_every_file_of_the_package_grows_under_another_name():
    found = set()
    for folder in ("fairseq_entmax", "examples"):
        for path in sorted((REPO / folder).rglob("*.py")):
            name = str(path.relative_to(REPO))
            for outer in ast.parse(path.read_text(encoding="utf-8")).body:
                for call in ast.walk(outer):
                    if isinstance(call, ast.Call) and _writes(call) and not _is_unfinished(call):
                        found.add((name, getattr(outer, "name", "")))
    assert found == IN_PLACE


def test_the_list_of_writers_is_long_enough():
    """Twenty points at least where a process dies."""
    assert len(WRITERS) * (len(limits({"a": b"abc"})) + 1) >= 20
