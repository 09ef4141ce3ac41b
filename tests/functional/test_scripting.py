"""entmax_dense is entmax for models that are exported with torch.jit.script."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, reference
from fairseq_entmax.functional.mapping import entmax_dense

ALPHAS = [1.0, 1 + 1e-5, 1.01, 1.3, 1.5, 1.75, 2.0, 2.5, 4.0]

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def dense():
    return torch.jit.script(entmax_dense)


@pytest.mark.parametrize("shape", [(6,), (4, 1), (2, 3, 17), (3, 600)], ids=str)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_equals_entmax(dense, alpha, shape):
    for scale in (1e-3, 1, 10):
        z = scale * torch.randn(shape)
        assert_close(dense(z, alpha), entmax(z, alpha), atol=1e-6, rtol=0)
        assert_close(dense(z, alpha).double(), reference.entmax(z, alpha), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_keeps_the_dtype(dense, alpha, dtype):
    z = torch.randn(3, 17).to(dtype)
    probs = dense(z, alpha)
    assert probs.dtype == dtype
    expected = reference.entmax(z, alpha)
    eps = torch.finfo(dtype).eps
    assert ((probs.double() - expected).abs() <= eps * expected + 1e-7).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_masks(dense, alpha):
    z = torch.randn(4, 7)
    z[0, 2:5] = -math.inf
    z[1, 1:] = -math.inf
    z[2] = -math.inf
    probs = dense(z, alpha)
    assert_close(probs, entmax(z, alpha), atol=1e-6, rtol=0)
    assert not probs[0, 2:5].any()
    assert probs[1, 0] == 1
    assert not probs[2].any()
    assert_close(probs[3].double(), reference.entmax(z[3], alpha), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_broken_rows_stay_alone(dense, alpha, bad):
    z = torch.randn(3, 7)
    z[1, 4] = bad
    probs = dense(z, alpha)
    assert probs[1].isnan().all()
    expected = reference.entmax(z[[0, 2]], alpha)
    assert_close(probs[[0, 2]].double(), expected, atol=1e-6, rtol=0)


def test_survives_saving(tmp_path):
    path = str(tmp_path / "entmax.pt")
    torch.jit.save(torch.jit.script(entmax_dense), path)
    z = torch.randn(3, 7)
    assert_close(torch.jit.load(path)(z, 1.5), entmax(z, 1.5), atol=1e-6, rtol=0)
