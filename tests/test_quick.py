"""make test-quick leaves out what it says, and no name that is gone."""

import re
from pathlib import Path

import pytest

from .quick import SLOW, is_slow

TESTS = Path(__file__).resolve().parent


@pytest.mark.parametrize(
    ("nodeid", "slow"),
    [
        ("tests/functional/test_properties.py::test_x[1-2]", True),
        ("tests/functional/test_entmax.py::test_a_million_classes[4.0]", True),
        ("tests/functional/test_entmax.py::test_float32[1.75-10007]", True),
        ("tests/functional/test_entmax.py::test_float32[1000-plain]", True),
        ("tests/functional/test_entmax.py::test_float32[1.75-600]", False),
        ("tests/functional/test_entmax.py::test_float32[1.00001-513]", False),
        ("tests/functional/test_entmax.py::test_a_million_classes_more", False),
        ("tests/models/test_contract.py::test_scripts", False),
        ("tests/models/test_contract.py::test_script[a]", True),
    ],
)
def test_slow_tests_are_known_by_name(nodeid, slow):
    assert is_slow(nodeid) == slow


@pytest.mark.parametrize("name", SLOW)
def test_every_name_is_there(name):
    if name.endswith(".py"):
        assert (TESTS / name).is_file()
    else:
        pattern = re.compile(rf"^def {name}\(", re.M)
        files = TESTS.rglob("test_*.py")
        assert any(pattern.search(path.read_text(encoding="utf-8")) for path in files)


def test_the_command_runs_no_command_line():
    text = (TESTS.parent / "Makefile").read_text(encoding="utf-8")
    assert '-m "not slow"' in text.split("\ntest-quick:")[1].split("\n\n")[0]
    folders = re.findall(r"tests/\w+", text.split("QUICK :=")[1].split("\n\n")[0])
    assert "tests/functional" in folders
    assert not {"tests/cli", "tests/examples", "tests/scripts", "tests/faults"} & set(folders)
