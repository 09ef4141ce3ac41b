"""log_entmax is the logarithm of the oracle's probabilities, -inf where they are zero."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import log_entmax, reference
from tests.kernels.builds import rows_of_every_kind


@pytest.mark.parametrize("n_classes", [1, 7, 513, 2001])
@pytest.mark.parametrize("alpha", [1.0, 1.25, 1.5, 2.0, 3.0])
def test_equals_the_oracle(alpha, n_classes, path):
    z = rows_of_every_kind(n_classes)[:-1]
    expected = reference.entmax(z, alpha)
    log_probs = log_entmax(z, alpha)
    assert log_probs.dtype == z.dtype and log_probs.shape == z.shape
    assert_close(log_probs.exp().double(), expected, atol=2e-6, rtol=0)
    clear = expected > 1e-4  # what is near the threshold may round to either side
    assert_close(log_probs.double()[clear], expected[clear].log(), atol=2e-3, rtol=0)
    clearly_out = expected == 0
    assert (log_probs[clearly_out].exp() <= 2e-6).all()
    assert (log_probs == -math.inf).any(-1).logical_or(~clearly_out.any(-1)).all()


def test_masked_rows_and_bad_rows(path):
    z = torch.tensor([[-math.inf] * 3, [math.nan, 0.0, 1.0], [0.0, math.inf, 0.0], [9.0, 0.0, 0.0]])
    log_probs = log_entmax(z, 1.5)
    assert (log_probs[0] == -math.inf).all()
    assert log_probs[1:3].isnan().all()
    assert log_probs[3].tolist() == [0.0, -math.inf, -math.inf]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_types(dtype, path):
    z = (3 * torch.randn(2, 3, 600)).to(dtype)
    log_probs = log_entmax(z, 1.5)
    assert log_probs.dtype == dtype and log_probs.shape == z.shape
    expected = reference.entmax(z, 1.5)
    precision = 1e-6 if dtype == torch.float64 else 2e-2
    assert_close(log_probs.double().exp(), expected, atol=precision, rtol=precision)


def test_no_gradient_and_no_rows(path):
    assert not log_entmax(torch.randn(2, 4, requires_grad=True), 1.5).requires_grad
    assert log_entmax(torch.zeros(0, 4), 1.5).shape == (0, 4)
    with pytest.raises(ValueError, match=r"0\.5"):
        log_entmax(torch.zeros(1, 4), 0.5)
