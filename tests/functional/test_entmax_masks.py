"""Masked entries, rows that are all masked, rows with NaN or +inf."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, reference
from tests.functional.problems import HALF_TYPES, LONG, jacobian_product


@pytest.mark.parametrize("n_classes", [2, 17, LONG])
@pytest.mark.parametrize("alpha", [1, 1.01, 1.3, 1.5, 2, 3])
def test_a_mask_equals_deletion(alpha, n_classes, float_type):
    for scale in (1, 10):
        z = scale * torch.randn(3, n_classes, dtype=float_type)
        masked = torch.arange(n_classes) % 3 == 1
        probs = entmax(z.masked_fill(masked, -math.inf), alpha)
        assert not probs[:, masked].any()
        deleted = entmax(z[:, ~masked], alpha)
        assert_close(probs[:, ~masked], deleted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2, 3])
def test_an_only_entry_takes_all(alpha, n_classes, float_type):
    z = torch.full((1, n_classes), -math.inf, dtype=float_type)
    z[0, n_classes - 2] = -7.0
    assert entmax(z, alpha)[0, n_classes - 2] == 1
    assert entmax(z, alpha).sum() == 1


@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2, 3])
def test_all_masked_rows_are_zeros_with_zero_gradient(alpha, n_classes, float_type):
    z = 5 * torch.randn(3, n_classes, dtype=float_type)
    weights = torch.randn(3, n_classes, dtype=float_type)
    expected, slopes = reference.entmax(z, alpha), jacobian_product(z, weights, alpha)
    z[1] = -math.inf
    z.requires_grad_()
    probs = entmax(z, alpha)
    (probs * weights).sum().backward()
    assert not probs[1].any()
    assert not z.grad[1].any()
    digits = 1e-9 if float_type == torch.float64 else 2e-6
    assert_close(probs[[0, 2]].double(), expected[[0, 2]], atol=digits, rtol=0)
    assert_close(z.grad[[0, 2]].double(), slopes[[0, 2]], atol=digits, rtol=10 * digits)


@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2, 3])
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_16_bit_all_masked_rows_are_zeros(dtype, alpha, path):
    z = torch.full((2, 5), -math.inf, dtype=dtype)
    assert torch.equal(entmax(z, alpha), torch.zeros_like(z))


@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize(
    "bad, place",
    [(math.nan, 0), (math.inf, 2), (math.nan, -1), (math.inf, -1)],
    ids=["nan-first", "inf-middle", "nan-last", "inf-last"],
)
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2, 3])
def test_a_broken_row_is_nan_and_stays_alone(alpha, bad, place, n_classes, float_type):
    z = 5 * torch.randn(4, n_classes, dtype=float_type)
    weights = torch.randn(4, n_classes, dtype=float_type)
    weights[1] = 0
    expected, slopes = reference.entmax(z, alpha), jacobian_product(z, weights, alpha)
    z[1, place] = bad
    z[3] = -math.inf
    z.requires_grad_()
    probs = entmax(z, alpha)
    probs.backward(weights)
    assert probs[1].isnan().all()
    assert not probs[3].any()
    digits = 1e-9 if float_type == torch.float64 else 2e-6
    assert_close(probs[[0, 2]].double(), expected[[0, 2]], atol=digits, rtol=0)
    assert_close(z.grad[[0, 2]].double(), slopes[[0, 2]], atol=digits, rtol=10 * digits)
