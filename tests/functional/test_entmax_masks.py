"""Masked entries, rows that are all masked, rows with NaN or +inf."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, reference
from tests.functional.problems import HALF_TYPES, LONG


@pytest.mark.parametrize("n_classes", [2, 17, LONG])
@pytest.mark.parametrize("alpha", [1, 1.01, 1.3, 1.5, 2, 3])
def test_a_mask_equals_deletion(alpha, n_classes):
    for scale in (1, 10):
        z = scale * torch.randn(3, n_classes)
        masked = torch.arange(n_classes) % 3 == 1
        probs = entmax(z.masked_fill(masked, -math.inf), alpha)
        assert not probs[:, masked].any()
        deleted = entmax(z[:, ~masked], alpha)
        assert_close(probs[:, ~masked], deleted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2, 3])
def test_an_only_entry_takes_all(alpha, n_classes):
    z = torch.full((1, n_classes), -math.inf)
    z[0, n_classes - 2] = -7.0
    assert entmax(z, alpha)[0, n_classes - 2] == 1
    assert entmax(z, alpha).sum() == 1


@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2, 3])
def test_all_masked_rows_are_zeros_with_zero_gradient(alpha, n_classes):
    z = 5 * torch.randn(3, n_classes, dtype=torch.float64)
    weights = torch.randn(3, n_classes, dtype=torch.float64)
    expected = reference.entmax(z, alpha)
    slopes = reference.entmax_jacobian(expected, alpha) @ weights.unsqueeze(-1)
    z[1] = -math.inf
    z.requires_grad_()
    probs = entmax(z, alpha)
    (probs * weights).sum().backward()
    assert not probs[1].any()
    assert not z.grad[1].any()
    assert_close(probs[[0, 2]], expected[[0, 2]], atol=1e-12, rtol=0)
    assert_close(z.grad[[0, 2]], slopes.squeeze(-1)[[0, 2]], atol=1e-9, rtol=0)


@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2, 3])
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_16_bit_all_masked_rows_are_zeros(dtype, alpha):
    z = torch.full((2, 5), -math.inf, dtype=dtype)
    assert torch.equal(entmax(z, alpha), torch.zeros_like(z))


@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("place", [0, 2, -1], ids=["first", "middle", "last"])
@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2, 3])
def test_a_broken_row_is_nan_and_stays_alone(alpha, bad, place, n_classes):
    z = 5 * torch.randn(4, n_classes, dtype=torch.float64)
    weights = torch.randn(4, n_classes, dtype=torch.float64)
    weights[1] = 0
    expected = reference.entmax(z, alpha)
    slopes = reference.entmax_jacobian(expected, alpha) @ weights.unsqueeze(-1)
    z[1, place] = bad
    z[3] = -math.inf
    z.requires_grad_()
    probs = entmax(z, alpha)
    probs.backward(weights)
    assert probs[1].isnan().all()
    assert not probs[3].any()
    assert_close(probs[[0, 2]], expected[[0, 2]], atol=1e-12, rtol=0)
    assert_close(z.grad[[0, 2]], slopes.squeeze(-1)[[0, 2]], atol=1e-9, rtol=0)
