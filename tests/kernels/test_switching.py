"""Which build runs: the switch, the log, and a package without kernels."""

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fairseq_entmax
from fairseq_entmax.functional import dispatch, entmax, linear_entmax_loss
from fairseq_entmax.kernels import native
from tests.kernels.builds import missing

PACKAGE = Path(fairseq_entmax.__file__).parent

# for each folder, in a process of its own: the log, whether kernels are used, and probabilities
PROGRAM = """
import logging, os, sys
import torch, fairseq
# an editable install would lend the copy what it lacks
sys.meta_path[:] = [finder for finder in sys.meta_path if "ditable" not in repr(finder)]
for folder in sys.argv[1:]:
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0, folder
        continue
    sys.path.insert(0, folder)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s", force=True)
    from fairseq_entmax.functional import dispatch, entmax, linear_entmax_loss
    assert dispatch.__file__.startswith(folder)
    z = torch.tensor([[2.0, 1.0, -1.0]], requires_grad=True)
    for _ in range(2):
        p = entmax(z)
        p[0, 0].backward()
        linear_entmax_loss(torch.eye(3), torch.eye(3), torch.arange(3))
    print("compiled", dispatch.compiled(z) is not None, *(f"{v:.4f}" for v in p[0].tolist()))
    sys.exit()
"""


@pytest.fixture(autouse=True)
def forget():
    native.library.cache_clear()
    yield
    native.library.cache_clear()


@pytest.mark.parametrize("build", native.BUILDS)
def test_a_build_is_chosen_by_name(monkeypatch, build):
    if missing(build):
        pytest.skip(missing(build))
    monkeypatch.setenv(native.SWITCH, build)
    assert f"_entmax_{build}." in native.library()._name


def test_the_best_runnable_build_is_the_default(monkeypatch):
    monkeypatch.delenv(native.SWITCH, raising=False)
    runnable = [build for build in native.BUILDS if not missing(build)]
    if not runnable:
        pytest.skip(missing(native.BUILDS[0]))
    assert f"_entmax_{runnable[-1]}." in native.library()._name


def test_off_is_torch_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setenv(native.SWITCH, "off")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert dispatch.compiled(torch.zeros(1, 3)) is None
    assert [r.getMessage() for r in caplog.records] == [
        "compiled kernels are switched off (FAIRSEQ_ENTMAX_KERNELS=off): using torch"
    ]


def test_off_gives_the_same_numbers(monkeypatch):
    z = torch.randn(20, 30)
    compiled = entmax(z, 1.5)
    monkeypatch.setenv(native.SWITCH, "off")
    native.library.cache_clear()
    torch.testing.assert_close(entmax(z, 1.5), compiled, atol=1e-6, rtol=0)


def test_an_unknown_name_is_an_error_that_lists_the_choices(monkeypatch):
    monkeypatch.setenv(native.SWITCH, "sse9")
    message = "FAIRSEQ_ENTMAX_KERNELS must be 'off' or one of baseline, avx2, avx512, got 'sse9'"
    for _ in range(2):  # not only the first time
        with pytest.raises(ValueError, match=message):
            linear_entmax_loss(torch.eye(3), torch.eye(3), torch.arange(3))


@pytest.mark.parametrize(
    "built, best, words",
    [
        (["baseline", "avx2", "avx512"], 1, "cannot run it (to be had: baseline, avx2)"),
        (["baseline"], 2, "not built here (to be had: baseline)"),
        ([], -1, "not built here (to be had: none)"),
    ],
    ids=["an older processor", "not built", "nothing built"],
)
def test_a_choice_that_cannot_run_is_refused(monkeypatch, built, best, words):
    monkeypatch.setenv(native.SWITCH, "avx512")
    monkeypatch.setattr(native, "_path", lambda name: Path(name) if name in built else None)
    monkeypatch.setattr(native, "_best_build", lambda _: best)
    with pytest.raises(ValueError, match=re.escape(words)):
        entmax(torch.zeros(1, 3))


@pytest.mark.parametrize(
    "dtype, device",
    [(torch.float64, "cpu"), (torch.float32, "meta")],
    ids=["float64", "another device"],
)
def test_other_scores_are_left_to_torch(dtype, device):
    assert dispatch.compiled(torch.zeros(1, 3, dtype=dtype, device=device)) is None


def copy_package(folder):
    without = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(PACKAGE, folder / "fairseq_entmax", ignore=without)
    return folder


def test_without_libraries_or_their_folder_torch_does_it(tmp_path):
    unbuilt, deleted = copy_package(tmp_path / "unbuilt"), copy_package(tmp_path / "deleted")
    shutil.rmtree(deleted / "fairseq_entmax" / "kernels")
    command = [sys.executable, "-c", PROGRAM, str(unbuilt), str(deleted)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", native.SWITCH: ""}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "no compiled kernels (built without a C compiler): using torch",
        "compiled False 0.8307 0.1693 0.0000",
        "compiled False 0.8307 0.1693 0.0000",
    ]
