"""Triton's kernels compile for GPUs that are not here, and keep their numbers in registers."""

import sys

import pytest
import torch

from tests.processes import run_module

pytest.importorskip("triton", reason="Triton is missing: pip install triton")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton's tools are for Linux")

LARGEST_SHARED = 163 * 1024  # of an A100; an H100 has more
REGISTERS = 65536  # of a multiprocessor
SPILLED = {"loss, ": 32}  # bytes of stack that are allowed


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    environment = {"TRITON_CACHE_DIR": str(folder / "cache"), "TRITON_INTERPRET": "0"}
    run_module("tests.kernels.triton.compiled", folder, **environment)
    return torch.load(str(folder / "found.pt"), weights_only=True)


def test_limits_of_the_hardware(found):
    assert len(found) == 16
    for name, numbers in found.items():
        allowed = max(size for start, size in {"": 0, **SPILLED}.items() if name.startswith(start))
        assert numbers["STACK"] <= allowed, name
        assert numbers["REG"] * 256 <= REGISTERS, name
        assert numbers["shared"] <= LARGEST_SHARED, name


def test_rows_are_read_and_written_128_bits_at_a_time(found):
    for name, numbers in found.items():
        assert numbers["LDG 128"] >= 1, name
        if not name.startswith("loss, "):  # it writes numbers of rows
            assert numbers["STG 128"] >= 1, name
