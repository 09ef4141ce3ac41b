"""The list of repairs: each names a fault and a test that exists, and can be switched off."""

import ast
import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_entmax import compat
from fairseq_entmax.compat.repairs import SWITCH

REPO = Path(__file__).resolve().parents[2]
ALL = pytest.mark.parametrize("repair", compat.REPAIRS, ids=lambda repair: repair.name)


@ALL
def test_repair_says_what_it_mends(repair):
    text = repair.apply.__doc__
    for word in ("Fault:", "Versions:", "Test:"):
        assert word in text


@ALL
def test_its_test_exists(repair):
    named = re.search(r"Test: ([\w/]+\.py)(?:::([\w*]+))?", repair.apply.__doc__)
    path, function = named.groups()
    tree = ast.parse((REPO / path).read_text(encoding="utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert fnmatch.filter(names, function or "test_*")


def imported(switch):
    code = (
        "import logging; logging.basicConfig(level=logging.DEBUG, format='%(name)s %(message)s')\n"
        "import fairseq_entmax\nfrom fairseq.data import data_utils\nimport numpy as np\n"
        "print(sum(map(len, data_utils.batch_by_size(np.arange(3), lambda i: 1, max_sentences=8,"
        " required_batch_size_multiple=8))))"
    )
    environment = {**os.environ, SWITCH: switch}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    return done.returncode, done.stdout.strip(), done.stderr


def test_repairs_can_be_switched_off():
    code, kept, log = imported("")
    assert (code, kept) == (0, "3") and "'switched off': []" in log
    for switch in ("off", "keep_last_batch , find_groups_by_row"):
        code, kept, log = imported(switch)
        assert (code, kept) == (0, "0"), log
        assert "keep_last_batch" in log.split("'switched off': ")[1]


def test_an_unknown_repair_is_said():
    code, _, log = imported("keep_last_bach")
    assert code != 0
    last = log.strip().splitlines()[-1]
    assert SWITCH in last and "'keep_last_bach'" in last and "keep_last_batch," in last


def test_every_repair_stands_in_the_table():
    page = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    assert table == {repair.name for repair in compat.REPAIRS}
