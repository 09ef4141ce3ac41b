"""Which back end and which build runs: the switch, the log, files that do not load."""

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import fairseq_entmax
from fairseq_entmax.functional import entmax, entmax_loss, linear_entmax_loss
from fairseq_entmax.kernels import device, native, plain
from fairseq_entmax.kernels.choose import choose, choose_output_layer
from fairseq_entmax.kernels.native import library
from tests.kernels.builds import missing

PACKAGE = Path(fairseq_entmax.__file__).parent
GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="there is no gcc here")


@pytest.fixture(autouse=True)
def forget():
    library.library.cache_clear()
    yield
    library.library.cache_clear()


@pytest.fixture
def compiled():
    if choose(torch.zeros(1, 1)) is not native:
        pytest.skip("the compiled kernels are not there or switched off")


# ---- the switch


@pytest.mark.parametrize("build", library.BUILDS)
def test_a_build_is_chosen_by_name(monkeypatch, build):
    if missing(build):
        pytest.skip(missing(build))
    monkeypatch.setenv(library.SWITCH, build)
    assert f"_entmax_{build}." in library.library()._name


def test_the_best_runnable_build_is_the_default(monkeypatch):
    monkeypatch.delenv(library.SWITCH, raising=False)
    runnable = [build for build in library.BUILDS if not missing(build)]
    if not runnable:
        pytest.skip(missing(library.BUILDS[0]))
    assert f"_entmax_{runnable[-1]}." in library.library()._name


def test_off_is_torch_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setenv(library.SWITCH, "off")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert choose(torch.zeros(1, 3)) is plain
            assert choose_output_layer(torch.zeros(1, 3)) is None
    assert [r.getMessage() for r in caplog.records] == [
        "compiled kernels are switched off (FAIRSEQ_ENTMAX_KERNELS=off): using torch"
    ]


def test_off_gives_the_same_numbers(monkeypatch):
    z = torch.randn(20, 30)
    default = entmax(z, 1.5)
    monkeypatch.setenv(library.SWITCH, "off")
    library.library.cache_clear()
    torch.testing.assert_close(entmax(z, 1.5), default, atol=1e-6, rtol=0)


def test_an_unknown_name_is_an_error_that_lists_the_choices(monkeypatch):
    monkeypatch.setenv(library.SWITCH, "sse9")
    message = "FAIRSEQ_ENTMAX_KERNELS must be 'off' or one of baseline, avx2, avx512, got 'sse9'"
    for _ in range(2):  # not only the first time
        with pytest.raises(ValueError, match=message):
            linear_entmax_loss(torch.eye(3), torch.eye(3), torch.arange(3))


class Build:
    """Stands for a library made for one of the builds."""

    def __init__(self, best):
        self.entmax_best_build = lambda: best


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
    monkeypatch.setenv(library.SWITCH, "avx512")
    monkeypatch.setattr(library, "_built", lambda: {name: Build(best) for name in built})
    with pytest.raises(ValueError, match=re.escape(words)):
        entmax(torch.zeros(1, 3))


# ---- tensors that the compiled kernels cannot read


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_float64_is_left_to_torch(where):
    assert choose(torch.zeros(1, 3, dtype=torch.float64, device=where)) is plain


def test_other_devices_have_their_back_end():
    assert choose(torch.zeros(1, 3, device="meta")) is device


def test_fake_tensors_are_not_read(compiled):
    with FakeTensorMode():
        fake = torch.zeros(2, 3)
        assert fake.device.type == "cpu"
        assert choose(fake) is device
        assert entmax(fake).shape == (2, 3)
    assert choose(torch.zeros(2, 3), fake) is plain


@pytest.mark.parametrize("alpha", [1.5, 1.3])
def test_a_batch_of_gradients_is_left_to_torch(compiled, alpha):
    z, y = torch.randn(3, 7), torch.tensor([1, 2, 3])
    jacobian = torch.autograd.functional.jacobian
    for function in (
        lambda z: entmax(z, alpha),
        lambda z: entmax_loss(z, y, alpha, reduction="none"),
    ):
        torch.testing.assert_close(jacobian(function, z, vectorize=True), jacobian(function, z))


# ---- files that do not load


@pytest.fixture
def folder(tmp_path, monkeypatch, compiled):
    """A folder with the baseline build only, in the place of the package's own."""
    monkeypatch.delenv(library.SWITCH, raising=False)
    found = next(library.FOLDER.glob("_entmax_baseline*.so"))
    (tmp_path / "_entmax_baseline.so").write_bytes(found.read_bytes())
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    library.library.cache_clear()
    return tmp_path


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("kept", [0, 5, 63, 64, 200, 0.3, 0.5, 0.9])
def test_a_truncated_file_is_left_out(folder, caplog, kept):
    whole = (folder / "_entmax_baseline.so").read_bytes()
    length = int(kept * len(whole)) if isinstance(kept, float) else kept
    (folder / "_entmax_avx2.so").write_bytes(whole[:length])
    for _ in range(2):
        assert library.library()._name.endswith("_entmax_baseline.so")
    (warning,) = warnings_of(caplog)
    assert warning.startswith(f"compiled kernels left out: {folder / '_entmax_avx2.so'}: ")


def test_a_foreign_library_is_left_out(folder, caplog):
    shutil.copy(torch._C.__file__, folder / "_entmax_avx2.so")
    assert library.library()._name.endswith("_entmax_baseline.so")
    assert "entmax_abi" in "".join(warnings_of(caplog))


def test_a_build_for_another_python_is_not_looked_at(folder, caplog):
    (folder / "_entmax_avx2.cpython-36m-x86_64-linux-gnu.so").write_text("not for us")
    assert library.library()._name.endswith("_entmax_baseline.so")
    assert not warnings_of(caplog)


@pytest.mark.parametrize("changed", ["ABI", "LossFields"])
def test_a_build_of_other_sources_is_left_out(folder, caplog, monkeypatch, changed):
    class Longer(library.LossFields):
        _fields_ = [("more", library.ctypes.c_long)]

    monkeypatch.setattr(library, changed, {"ABI": 99, "LossFields": Longer}[changed])
    assert library.library() is None
    assert choose(torch.zeros(1, 3)) is plain
    assert "built from other sources" in "".join(warnings_of(caplog))


# without native means: no libraries beside the Python files
UNBUILT = """
import logging, sys, torch
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s", force=True)
from fairseq_entmax.functional import entmax, linear_entmax_loss
from fairseq_entmax.kernels import choose
assert choose.__file__.startswith(sys.argv[1])
z = torch.tensor([[2.0, 1.0, -1.0]], requires_grad=True)
for _ in range(2):
    p = entmax(z)
    p[0, 0].backward()
    linear_entmax_loss(torch.eye(3), torch.eye(3), torch.arange(3))
print(choose.choose(z).__name__, *(f"{v:.4f}" for v in p[0].tolist()))
"""


def run(program, argument, cwd=None):
    command = [sys.executable, "-c", program, str(argument)]
    env = {**os.environ, library.SWITCH: ""}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_without_libraries_torch_does_it(tmp_path):
    without = shutil.ignore_patterns("*.so", "__pycache__")
    for room in ("functional", "kernels"):
        shutil.copytree(PACKAGE / room, tmp_path / "fairseq_entmax" / room, ignore=without)
    (tmp_path / "fairseq_entmax" / "__init__.py").touch()
    done = run(UNBUILT, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "no compiled kernels (built without a C compiler): using torch",
        "fairseq_entmax.kernels.plain 0.8307 0.1693 0.0000",
    ]


# beside a second OpenMP library, as scikit-learn brings one
OTHER_OPENMP = """
import ctypes, sys, torch
other = ctypes.CDLL(sys.argv[1])
torch.set_num_threads(2)
from fairseq_entmax.functional import entmax
from fairseq_entmax.kernels.native.library import library
assert library() is not None
print(f"{entmax(torch.zeros(100, 1000)).sum():.3f}")
"""


@needs_gcc
@pytest.mark.skipif(sys.platform != "linux", reason="shared libraries are named for Linux")
@pytest.mark.parametrize("name", ["a b", "plain"])
def test_threads_are_those_of_torch(compiled, tmp_path, name):
    source, other = tmp_path / "other.c", tmp_path / name / "libgomp.so.1"
    source.write_text("#include <stdlib.h>\nvoid GOMP_parallel(void) { abort(); }\n")
    other.parent.mkdir()
    subprocess.run([GCC, "-shared", "-fPIC", source, "-o", other], check=True)
    done = run(OTHER_OPENMP, other)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "100.000"
