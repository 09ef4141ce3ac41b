"""The list of repairs: each names a fault and a test that exists, and can be switched off."""

import ast
import fnmatch
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_entmax import compat
from fairseq_entmax.compat import repairs
from fairseq_entmax.compat.repairs import SWITCH

REPO = Path(__file__).resolve().parents[2]
ALL = pytest.mark.parametrize("repair", compat.REPAIRS, ids=lambda repair: repair.name)


@ALL
def test_repair_says_what_it_mends(repair):
    text = repair.apply.__doc__
    for word in ("Fault:", "Versions:", "Test:"):
        assert word in text


@ALL
def test_its_tests_exist(repair):
    text = repair.apply.__doc__.split("Test:")[1]
    named = re.findall(r"(tests/[\w/]+\.py)(?:::([\w*]+))?", text)
    assert named and len(named) == text.count("tests/")
    for path, function in named:
        tree = ast.parse((REPO / path).read_text(encoding="utf-8"))
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert fnmatch.filter(names, function or "test_*"), (path, function)


@ALL
def test_the_fault_is_gone(repair):
    """A probe of the fault itself finds nothing once it is mended, so a mended fairseq is left."""
    assert not repair.needed()


def test_probes_are_quiet_and_leave_random_numbers_alone(caplog, recwarn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = torch.get_rng_state(), np.random.get_state()[1]
    with caplog.at_level(logging.INFO):
        for repair in compat.REPAIRS:
            repair.needed()
    assert not caplog.records and not list(recwarn) and not list(tmp_path.iterdir())
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert np.array_equal(np.random.get_state()[1], drawn[1])


def test_every_file_of_the_folder_is_imported():
    folder = Path(compat.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "repairs", "wrapping"}
    assert files == {repair.apply.__module__.rpartition(".")[2] for repair in compat.REPAIRS}


def test_a_fault_that_cannot_be_looked_for_is_mended(monkeypatch, caplog):
    def unknown():
        raise AttributeError("no such class in this fairseq")

    mended = []
    one = repairs.Repair("one", lambda: mended.append("one"), unknown)
    monkeypatch.setattr(repairs, "REPAIRS", [one])
    with caplog.at_level(logging.DEBUG, logger=repairs.logger.name):
        repairs.apply()
    assert mended == ["one"]
    assert "one: AttributeError: no such class" in caplog.text and "one: applied" in caplog.text


def imported(switch, level="DEBUG"):
    code = (
        "import logging; logging.basicConfig(level=logging.DEBUG, format='%(name)s %(message)s')\n"
        "import fairseq_entmax\nfrom fairseq.data import data_utils\nimport numpy as np\n"
        "print(sum(map(len, data_utils.batch_by_size(np.arange(3), lambda i: 1, max_sentences=8,"
        " required_batch_size_multiple=8))))"
    )
    environment = {**os.environ, "LOGLEVEL": level, SWITCH: switch}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    return done.returncode, done.stdout.strip(), done.stderr


def test_repairs_can_be_switched_off():
    code, kept, log = imported("")
    assert (code, kept) == (0, "3") and "switched off" not in log
    assert "keep_last_batch: applied" in log and "warn_without_protection: not needed" in log
    for switch in ("off", "keep_last_batch , find_groups_by_row"):
        code, kept, log = imported(switch)
        assert (code, kept) == (0, "0"), log
        assert "keep_last_batch: switched off" in log and "find_groups_by_row: switched off" in log
        assert ("block_repeated_ngrams: applied" in log) == (switch != "off")


def test_repairs_are_not_told_unasked():
    code, kept, log = imported("", level="INFO")
    assert (code, kept) == (0, "3") and "keep_last_batch" not in log


def test_an_unknown_repair_is_said():
    code, _, log = imported("keep_last_bach")
    assert code != 0
    last = log.strip().splitlines()[-1]
    assert SWITCH in last and "'keep_last_bach'" in last and "keep_last_batch," in last


def test_every_repair_stands_in_the_table():
    page = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    assert table == {repair.name for repair in compat.REPAIRS}
