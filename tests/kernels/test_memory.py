"""When memory runs out in the kernels, whichever request it is, Python hears of it."""

import ctypes
import shutil
import subprocess

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.kernels import native
from fairseq_entmax.kernels.contract import SparseRows
from fairseq_entmax.kernels.native import library, rows, screening

GCC = shutil.which("gcc")
pytestmark = pytest.mark.skipif(GCC is None, reason="there is no gcc here")

# stands in for the allocators of the C library and refuses the request that it is told to
ALLOCATORS = """
#include <stdlib.h>
long requests_left = -1;
static int refused(void) { return requests_left >= 0 && requests_left-- == 0; }
void *scarce_malloc(size_t n) { return refused() ? NULL : malloc(n); }
void *scarce_calloc(size_t n, size_t size) { return refused() ? NULL : calloc(n, size); }
void *scarce_aligned_alloc(size_t a, size_t n) { return refused() ? NULL : aligned_alloc(a, n); }
"""
NAMES = ("malloc", "calloc", "aligned_alloc")


@pytest.fixture(scope="module")
def scarce(tmp_path_factory):
    """The kernels, built with those allocators."""
    folder = tmp_path_factory.mktemp("scarce")
    (folder / "allocators.c").write_text(ALLOCATORS)
    flags = ["-O1", "-std=gnu11", "-fopenmp-simd", "-Wno-psabi", "-fPIC"]
    renamed = [f"-D{name}=scarce_{name}" for name in NAMES]
    sources = sorted((library.FOLDER / "csrc").glob("*.c"))
    subprocess.run([GCC, *flags, *renamed, "-c", *sources], cwd=folder, check=True)
    subprocess.run([GCC, *flags, "-c", "allocators.c"], cwd=folder, check=True)
    objects = sorted(folder.glob("*.o"))
    subprocess.run([GCC, "-shared", *objects, "-lm", "-o", "scarce.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "scarce.so"))


ALPHA = torch.full((1, 1), 1.5, dtype=torch.float64)
TARGET = torch.tensor([1, 0, 2])


def scores():
    return torch.linspace(-4, 4, 2400).view(3, 800).sin() * 5


def layer():
    g = SparseRows(
        torch.tensor([0, 2, 3, 3]), torch.tensor([0, 2, 1]).int(), torch.tensor([0.5, -0.5, 2.0])
    )
    return g, torch.ones(3), torch.arange(12.0).view(3, 4)


def weight_gradient(accumulate):
    g, scale, features = layer()
    weight, bias = torch.full((5, 4), 7.0), torch.full((5,), 7.0)
    native.grad_weight(g, scale, features, weight, bias, accumulate=accumulate)
    return weight, bias


def screened():
    screen = screening.Screen(torch.eye(3, 8), 9 * torch.ones(300, 8).tril(), None, 1.5)
    solved = screen.solve(slice(0, 3), TARGET, 300)
    return solved.loss, solved.support_size


def general():
    return native.entmax(scores(), ALPHA + 0.1, None)


def loss():
    return native.solve_loss(scores(), TARGET, ALPHA, 1.5, 4).loss


def loss_gradient():
    solved = native.solve_loss(scores(), TARGET, ALPHA, 1.5, 4)
    return native.loss_backward(scores(), ALPHA, 1.5, solved, torch.ones(3))


CALLS = {
    "entmax": lambda: native.entmax(scores(), ALPHA, 1.5),
    "entmax of any alpha": general,
    "log_entmax": lambda: native.log_entmax(scores(), ALPHA, 1.5),
    "entmax_backward": lambda: native.entmax_backward(
        scores().softmax(1).bfloat16(), scores().bfloat16(), ALPHA, 1.5
    ),
    "solve_loss": loss,
    "loss_backward": loss_gradient,
    "screen": screened,
    "grad_features": lambda: native.grad_features(*layer()[:2], torch.ones(5, 4)),
    "grad_weight": lambda: weight_gradient(False),
    "grad_weight, added": lambda: weight_gradient(True),
}
NOTHING_TO_REFUSE = {"grad_features"}


@pytest.mark.parametrize("name", list(CALLS))
def test_a_refused_request_is_an_error(scarce, monkeypatch, name):
    for module in (library, rows):
        monkeypatch.setattr(module, "library", lambda: scarce)
    left = ctypes.c_long.in_dll(scarce, "requests_left")
    left.value = -1
    expected, refusals = CALLS[name](), 0
    for request in range(20):
        left.value = request
        try:
            result = CALLS[name]()
        except MemoryError as error:
            assert "not enough memory" in str(error)
            refusals += 1
        else:
            assert_close(result, expected, rtol=0, atol=0)
    assert 0 < refusals < 20 or name in NOTHING_TO_REFUSE
