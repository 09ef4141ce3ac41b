"""One alpha per distribution."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, reference
from tests.functional.problems import HALF_TYPES, LONG, row_errors


@pytest.mark.parametrize("n_classes", [1, 17, LONG, 10007])
def test_one_alpha_per_row_equals_a_loop(n_classes, path):
    # exponents on both sides of 2 in one call: each needs its own bound on tau
    alphas = [1.0, 1.0 + 1e-7, 1.01, 1.3, 1.5, 1.99, 2.0, 2.2, 4.0]
    for scale in (0.1, 1, 5):
        z = scale * torch.randn(len(alphas), n_classes)
        probs = entmax(z, torch.tensor(alphas, dtype=torch.float64).unsqueeze(1))
        for row, alpha in enumerate(alphas):
            assert row_errors(probs[row], reference.entmax(z[row], alpha)) <= 2e-6, alpha


@pytest.mark.parametrize("n_classes", [LONG, 2000, 20_000])
@pytest.mark.parametrize("alphas", [(1.2, 3.0), (1.5, 2.5), (1.9, 4.0)], ids=str)
def test_sparse_rows_on_both_sides_of_2(alphas, n_classes, path):
    # a bound on tau that holds above 2 would cut off support below 2
    z = 5 * torch.randn(2, n_classes)
    probs = entmax(z, torch.tensor(alphas, dtype=torch.float64).unsqueeze(1))
    for row, alpha in enumerate(alphas):
        assert row_errors(probs[row], reference.entmax(z[row], alpha)) <= 2e-6


def test_every_chunk_of_rows_has_its_own_alphas(path):
    z, alphas = 3 * torch.randn(250, 10007), torch.linspace(1.5, 3, 250, dtype=torch.float64)
    probs = entmax(z, alphas.unsqueeze(1))
    for row in (0, 208, 209, 210, 249):
        assert row_errors(probs[row], reference.entmax(z[row], alphas[row].item())) <= 2e-6


@pytest.mark.parametrize("dtype", [torch.float32] + HALF_TYPES, ids=str)
def test_the_dtype_of_alpha_is_not_that_of_the_scores(dtype):
    z = torch.randn(2, 5, dtype=torch.float64)
    alpha = torch.tensor([[1.3], [1.7]], dtype=dtype)
    probs = entmax(z, alpha)
    assert probs.dtype == torch.float64
    for row in (0, 1):
        expected = reference.entmax(z[row], alpha[row].item())
        assert_close(probs[row], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "shape, dim",
    [
        ((), -1),
        ((1,), -1),
        ((3, 1), -1),
        ((2, 1, 1), -1),
        ((2, 3, 1), -1),
        ((4,), 1),
        ((1, 4), 1),
        ((2, 1, 1), 1),
        ((2, 1, 4), 1),
        ((3, 4), 0),
        ((1, 3, 1), 0),
        ((), 0),
    ],
    ids=str,
)
def test_alpha_broadcasts(shape, dim, path):
    z = torch.randn(2, 3, 4)
    alpha = 1 + 2 * torch.rand(shape, dtype=torch.float64)
    probs = entmax(z, alpha, dim).movedim(dim, -1).reshape(-1, z.shape[dim])
    scores = z.movedim(dim, -1).reshape(-1, z.shape[dim])
    every_alpha = alpha.expand_as(z).movedim(dim, -1).reshape(-1, z.shape[dim])[:, 0]
    for row, row_alpha in enumerate(every_alpha.tolist()):
        expected = reference.entmax(scores[row], row_alpha)
        assert_close(probs[row].double(), expected, atol=1e-6, rtol=0)


def test_one_alpha_per_attention_head(path):
    scores = 3 * torch.randn(2, 4, 3, 7)  # (bsz, heads, tgt, src)
    alpha = torch.tensor([1.0, 1.2, 1.5, 1.9], dtype=torch.float64).view(4, 1, 1)
    probs = entmax(scores, alpha)
    for head in range(4):
        expected = reference.entmax(scores[:, head], alpha[head].item())
        assert_close(probs[:, head].double(), expected, atol=1e-6, rtol=0)


def test_rows_of_alpha_1_are_softmax():
    for n_classes in (7, LONG):
        z = 3 * torch.randn(4, n_classes, dtype=torch.float64)
        alpha = torch.tensor([[1.0], [1.5], [1.0], [3.0]])
        probs = entmax(z, alpha)
        assert_close(probs[[0, 2]], torch.softmax(z[[0, 2]], -1), atol=1e-15, rtol=1e-12)


def test_broken_and_masked_rows_beside_an_alpha_tensor(path):
    for n_classes in (7, LONG):
        z = torch.randn(4, n_classes)
        z[0, 3], z[2] = math.nan, -math.inf
        probs = entmax(z, torch.tensor([[1.0], [1.2], [1.0], [3.0]], dtype=torch.float64))
        assert probs[0].isnan().all()
        assert not probs[2].any()
        assert row_errors(probs[1], reference.entmax(z[1], 1.2)) <= 2e-6
        assert row_errors(probs[3], reference.entmax(z[3], 3.0)) <= 2e-6
