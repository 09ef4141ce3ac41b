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
        ("tests/kernels/test_backends.py::test_x[avx2-float32-64]", False),
        ("tests/kernels/test_backends.py::test_x[baseline-float32-64]", True),
        ("tests/kernels/test_backends.py::test_x[plain-bfloat16-64]", True),
        ("tests/functional/test_loss.py::test_16_bit_scores[64]", True),
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
    command = text.split("\ntest-quick:")[1].split("\n\n")[0]
    assert '-m "not slow and not faults" $(SKIPPED) tests' in command
    skipped = text.split("SKIPPED :=")[1].split("\n\n")[0]
    for folder in ("cli", "examples", "faults", "scripts", "transduction"):
        assert f"tests/{folder}" in skipped
