"""Wrong arguments are ValueErrors that show what was received."""

import math
import re

import numpy as np
import pytest
import torch

from fairseq_entmax.functional import (
    entmax,
    entmax15,
    entmax_loss,
    linear_entmax_loss,
    sparsemax,
)
from fairseq_entmax.functional.loss import entmax_loss_rows


def scores():
    return torch.zeros(2, 3, 4)


def target():
    return torch.zeros(2, 3, dtype=torch.long)


def raises(received):
    return pytest.raises(ValueError, match=re.escape(received))


ALPHAS = [
    (0.99, "got 0.99"),
    (0, "got 0"),
    (-2.0, "got -2.0"),
    (math.nan, "got nan"),
    (math.inf, "got inf"),
    ("1.5", "got str"),
    (None, "got NoneType"),
    (True, "got bool"),
    (torch.tensor(True), "got torch.bool"),
    (torch.tensor(1.5j), "got torch.complex64"),
    (torch.tensor([[1], [0], [2]]), "[0, 2]"),
    (torch.tensor([[1.5], [0.5], [2.0]]), "[0.5, 2.0]"),
    (torch.tensor(math.inf), "[inf, inf]"),
    (torch.tensor(math.nan), "[nan, nan]"),
    (torch.full((2, 3, 4), 1.5), "got shape (2, 3, 4)"),
    (torch.full((4,), 1.5), "got shape (4,)"),
    (torch.full((5, 1), 1.5), "(5, 1)"),
    (torch.full((7, 2, 3, 1), 1.5), "(7, 2, 3, 1)"),
    (torch.full((0, 1), 1.5), "(0, 1)"),
]


@pytest.mark.parametrize("alpha, received", ALPHAS, ids=[received for _, received in ALPHAS])
def test_wrong_alpha(alpha, received):
    with raises(received):
        entmax(scores(), alpha)
    with raises(received):
        entmax_loss(scores(), target(), alpha)
    with raises(received):
        entmax_loss_rows(scores(), target(), alpha)


@pytest.mark.parametrize(
    "alpha", [np.float32(2), np.float64(2), np.int64(2), torch.tensor(2), torch.tensor([[2]] * 3)]
)
def test_alphas_of_other_types(alpha):
    z = torch.tensor([[[0.3, -0.2, 0.1, 0.9]] * 3] * 2)
    assert torch.equal(entmax(z, alpha), entmax(z, 2.0))
    torch.testing.assert_close(
        entmax_loss(z, target(), alpha), entmax_loss(z, target(), 2.0), rtol=1e-6, atol=0
    )


def test_alpha_of_size_above_1_in_another_dim():
    with raises("size 1 in dim 1"):
        entmax(scores(), torch.full((2, 3, 1), 1.5), dim=1)


SCORES = [
    (torch.zeros(2, 3, dtype=torch.long), "got torch.int64"),
    (torch.zeros(2, 3, dtype=torch.bool), "got torch.bool"),
    (torch.zeros(2, 3, dtype=torch.complex64), "got torch.complex64"),
    (torch.tensor(1.0), "got a scalar"),
    ([1.0, 2.0], "got list"),
    (torch.eye(2).to_sparse(), "got torch.sparse_coo"),
]


@pytest.mark.parametrize("wrong, received", SCORES, ids=[received for _, received in SCORES])
@pytest.mark.parametrize("mapping", [entmax, sparsemax, entmax15])
def test_wrong_scores(mapping, wrong, received):
    with raises(received):
        mapping(wrong)


@pytest.mark.parametrize("wrong, received", SCORES, ids=[received for _, received in SCORES])
def test_wrong_scores_of_a_loss(wrong, received):
    with raises(received):
        entmax_loss(wrong, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("dim", [3, -4, 100])
@pytest.mark.parametrize("alpha", [1, 1.5])
def test_wrong_dim(alpha, dim):
    with raises(f"dim={dim} is out of range for scores of shape (2, 3, 4)"):
        entmax(scores(), alpha, dim)
    with raises(f"dim={dim}"):
        sparsemax(scores(), dim)
    with raises(f"dim={dim}"):
        entmax15(scores(), dim)


@pytest.mark.parametrize("alpha", [1, 1.3, 1.5])
@pytest.mark.parametrize("wrong", [4, -1, -100, 1000])
def test_target_out_of_range(wrong, alpha):
    y = target()
    y[1, 2] = wrong
    with raises(f"or be ignore_index=7, got {wrong}"):
        entmax_loss(scores(), y, alpha, ignore_index=7)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bool], ids=str)
def test_target_of_a_wrong_dtype(dtype):
    with raises(f"got {dtype}"):
        entmax_loss(scores(), target().to(dtype))


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 3, 1), (2, 3, 4), (6,)], ids=str)
@pytest.mark.parametrize("alpha", [1, 1.5])
def test_target_of_a_wrong_shape(alpha, shape):
    with raises(f"scores (2, 3, 4), target {shape}"):
        entmax_loss(scores(), torch.zeros(shape, dtype=torch.long), alpha)


@pytest.mark.parametrize("reduction", ["average", "", None])
def test_wrong_reduction(reduction):
    with raises(f"got {reduction!r}"):
        entmax_loss(scores(), target(), reduction=reduction)


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, 2, math.nan])
@pytest.mark.parametrize("alpha", [1, 1.5])
def test_wrong_label_smoothing(alpha, label_smoothing):
    with raises(f"got {label_smoothing}"):
        entmax_loss(scores(), target(), alpha, label_smoothing=label_smoothing)


def test_options_of_the_loss_are_keyword_only():
    with pytest.raises(TypeError):
        entmax_loss(scores(), target(), 1.5, -100)


def test_wrong_weights_of_an_output_layer():
    y = torch.zeros(2, dtype=torch.long)
    with raises("features (2, 0), weight (5, 0)"):
        linear_entmax_loss(torch.zeros(2, 0), torch.zeros(5, 0), y)
    with raises("weight must be dense, got torch.sparse_coo"):
        linear_entmax_loss(torch.zeros(2, 2), torch.eye(2).to_sparse(), y)
    with raises("scores must be dense, got torch.sparse_coo"):
        linear_entmax_loss(torch.eye(2).to_sparse(), torch.eye(2), y)
