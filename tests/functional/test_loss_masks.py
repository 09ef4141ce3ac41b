"""entmax_loss beside ignored rows, masked classes, rows with NaN or +inf."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax_loss, reference
from tests.functional.problems import LONG, loss_and_gradient, random_problem

FEW_ALPHAS = [1, 1.3, 1.5, 2, 3]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("ignore_index", [-100, -1, 1, 99])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_ignored_rows_count_nothing(alpha, ignore_index, label_smoothing, float_type):
    z = 0.1 * torch.randn(6, 5, dtype=float_type)  # no row is beyond the margin
    y = torch.tensor([2, ignore_index, 3, ignore_index, 2, 3])
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    expected = reference.entmax_loss(z, y, alpha, **options).to(float_type)
    loss, gradient = loss_and_gradient(z, y, alpha, reduction="none", **options)
    assert_close(loss, expected)
    assert loss[[1, 3]].tolist() == [0, 0]
    assert not gradient[[1, 3]].any()
    assert gradient[[0, 2, 4, 5]].any(1).all()
    assert_close(entmax_loss(z, y, alpha, reduction="sum", **options), expected.sum())
    assert_close(entmax_loss(z, y, alpha, reduction="mean", **options), expected.sum() / 4)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("ignore_index", [-100, 1])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_the_mean_of_no_rows_is_zero(alpha, ignore_index, label_smoothing, float_type):
    for n_rows in (0, 3):
        z = torch.randn(n_rows, 5, dtype=float_type)
        y = torch.full((n_rows,), ignore_index)
        options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
        loss, gradient = loss_and_gradient(z, y, alpha, **options)
        assert loss == 0
        assert gradient.shape == z.shape
        assert not gradient.any()


def test_a_single_class_that_is_ignored(float_type):
    z = torch.randn(2, 1, dtype=float_type)
    y = torch.zeros(2, dtype=torch.long)
    for alpha in FEW_ALPHAS:
        loss, gradient = loss_and_gradient(z, y, alpha, ignore_index=0, label_smoothing=0.1)
        assert loss == 0
        assert not gradient.any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("n_classes", [9, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_masked_classes_equal_no_classes(alpha, n_classes, label_smoothing, float_type):
    z, _ = random_problem(3, n_classes, dtype=float_type)
    masked = torch.arange(n_classes) % 3 == 2
    y = torch.tensor([0, 1, 3])
    options = {"ignore_index": 4, "label_smoothing": label_smoothing, "reduction": "none"}
    loss, gradient = loss_and_gradient(z.masked_fill(masked, -math.inf), y, alpha, **options)
    # classes 0, 1, 3, 4 of the long rows are 0, 1, 2, 3 of the short ones
    options["ignore_index"] = 3
    short = loss_and_gradient(z[:, ~masked], torch.tensor([0, 1, 2]), alpha, **options)
    assert loss.isfinite().all()
    assert_close(loss, short[0])
    assert_close(gradient[:, ~masked], short[1])
    assert not gradient[:, masked].any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
def test_each_row_smooths_over_its_own_classes(label_smoothing, float_type):
    z, y = random_problem(2, 6, dtype=float_type)
    z[0, 3], z[1, [0, 5]] = -math.inf, -math.inf
    y[:] = torch.tensor([0, 2])
    kept = [[0, 1, 2, 4, 5], [1, 2, 3, 4]]
    for alpha in FEW_ALPHAS:
        options = {"label_smoothing": label_smoothing}
        loss = entmax_loss(z, y, alpha, reduction="none", **options)
        for row in (0, 1):
            target = torch.tensor(kept[row].index(y[row]))
            expected = reference.entmax_loss(z[row, kept[row]], target, alpha, **options)
            assert_close(loss[row], expected.to(float_type))


@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_a_masked_target_costs_infinity(alpha, n_classes, float_type):
    z, _ = random_problem(2, n_classes, dtype=float_type)
    z[0, 1] = -math.inf
    loss = entmax_loss(z, torch.tensor([1, 1]), alpha, reduction="none")
    assert loss[0] == math.inf
    expected = reference.entmax_loss(z[1], torch.tensor(1), alpha)
    assert_close(loss[1], expected.to(float_type))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_all_masked_rows_cost_nothing(alpha, n_classes, label_smoothing, float_type):
    z, y = random_problem(3, n_classes, dtype=float_type)
    options = {"label_smoothing": label_smoothing, "reduction": "none"}
    whole = loss_and_gradient(z, y, alpha, **options)
    z[1] = -math.inf
    loss, gradient = loss_and_gradient(z, y, alpha, **options)
    assert loss[1] == 0
    assert not gradient[1].any()
    assert_close(loss[[0, 2]], whole[0][[0, 2]])
    assert_close(gradient[[0, 2]], whole[1][[0, 2]])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_a_broken_row_stays_alone(alpha, n_classes, bad, label_smoothing, float_type):
    z, _ = random_problem(4, n_classes, dtype=float_type)
    y = torch.tensor([0, 1, 2, 3])
    options = {"ignore_index": 3, "label_smoothing": label_smoothing, "reduction": "none"}
    whole = loss_and_gradient(z, y, alpha, **options)
    z[1, 4] = bad
    z[3, 0] = bad
    loss, gradient = loss_and_gradient(z, y, alpha, **options)
    assert loss[1].isnan()
    assert gradient[1].isnan().any()
    assert loss[3] == 0, "an ignored row counts nothing, whatever it holds"
    assert not gradient[3].any()
    assert_close(loss[[0, 2]], whole[0][[0, 2]])
    assert_close(gradient[[0, 2]], whole[1][[0, 2]])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=["nan", "inf", "masked"])
@pytest.mark.parametrize("alpha", FEW_ALPHAS + ["tensor"])
def test_a_graph_of_the_gradient_ignores_ignored_rows(alpha, bad, float_type):
    z, _ = random_problem(3, 5, dtype=float_type)
    z[1] = bad
    z.requires_grad_()
    inputs = [z]
    if alpha == "tensor":
        alpha = torch.tensor(1.3, requires_grad=True)
        inputs.append(alpha)
    y = torch.tensor([0, -100, 2])
    first = torch.autograd.grad(entmax_loss(z, y, alpha), inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.sin().sum() for g in first), inputs)
    for gradient in first + second:
        assert gradient.isfinite().all()
    assert not first[0][1].any()
    assert not second[0][1].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=["nan", "inf", "masked"])
def test_a_shared_alpha_ignores_ignored_rows(bad, float_type):
    z, y = random_problem(3, 5, dtype=float_type)
    y[1] = -100
    gradients = []
    for value in (0.0, bad):
        z[1] = value
        alpha = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
        entmax_loss(z, y, alpha).backward()
        gradients.append(alpha.grad)
    assert_close(gradients[1], gradients[0])
