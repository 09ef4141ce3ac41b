"""First and second derivatives of entmax_loss against finite differences and the oracle."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from fairseq_entmax.functional import entmax_loss, reference
from tests.functional.problems import (
    ALPHAS,
    HALF_TYPES,
    LONG,
    TENSOR_ALPHAS,
    as_tensor,
    jacobian_product,
    long_scores,
    slope,
    slope_from_the_right,
    sparse_scores,
)

OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"ignore_index": 1},
    {"ignore_index": 1, "label_smoothing": 0.3},
]
OPTION_IDS = ["plain", "smooth", "ignore", "smooth-ignore"]
TARGET = [3, 1, 0]


def smoothed_slope(z, y, alpha, eps, ignore_index):
    """p - e_y + eps (e_y - u), u uniform over the classes that are not ignored."""
    n_classes = z.shape[-1]
    e_y = torch.nn.functional.one_hot(y.clamp(min=0), n_classes).double()
    u = (torch.arange(n_classes) != ignore_index).double()
    gradient = reference.entmax(z, alpha) - e_y + eps * (e_y - u / u.sum())
    return gradient.masked_fill((y == ignore_index).unsqueeze(-1), 0.0)


@pytest.mark.parametrize("options", OPTIONS[::3], ids=OPTION_IDS[::3])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_loss_derivatives_by_scores(alpha, options):
    z, y = sparse_scores(3, 4), torch.tensor(TARGET)

    def loss(z):
        return entmax_loss(z, y, alpha, reduction="none", **options)

    assert gradcheck(loss, z)
    assert gradgradcheck(loss, z)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("options", OPTIONS, ids=OPTION_IDS)
def test_loss_derivative_of_every_reduction(options, reduction):
    z, y = sparse_scores(3, 4), torch.tensor(TARGET)
    for alpha in (1, 1.3, 1.5):
        assert gradcheck(lambda z, a=alpha: entmax_loss(z, y, a, reduction=reduction, **options), z)


@pytest.mark.parametrize("options", OPTIONS[::3], ids=OPTION_IDS[::3])
@pytest.mark.parametrize("alpha", TENSOR_ALPHAS)
def test_loss_derivative_by_alpha(alpha, options):
    z, y = sparse_scores(3, 4), torch.tensor(TARGET)

    def loss(z, alpha):
        return entmax_loss(z, y, alpha, reduction="none", **options)

    assert gradcheck(loss, (z, as_tensor(alpha, 3, 1)))
    assert gradcheck(loss, (z, as_tensor(alpha)))


@pytest.mark.parametrize("options", OPTIONS[::3], ids=OPTION_IDS[::3])
@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.5])
def test_loss_second_derivative_by_alpha(alpha, options):
    z, y = sparse_scores(3, 4), torch.tensor(TARGET)

    def loss(z, alpha):
        return entmax_loss(z, y, alpha, reduction="none", **options)

    assert gradgradcheck(loss, (z, as_tensor(alpha, 3, 1)))


def test_loss_derivative_of_one_row_by_alpha():
    z, y = sparse_scores(1, 5), torch.tensor([2])
    assert gradcheck(lambda z, a: entmax_loss(z, y, a), (z, as_tensor(1.4, 1, 1)))


@pytest.mark.parametrize("n_classes", [6, LONG])
@pytest.mark.parametrize("alpha", [1.0, 1 + 1e-9, 1 + 1e-7, 1 + 1e-5])
def test_loss_derivative_by_alpha_at_its_lower_end(alpha, n_classes):
    z, y = torch.randn(3, n_classes, dtype=torch.float64), torch.tensor([0, 3, 5])
    tensor = as_tensor(alpha)
    entmax_loss(z, y, tensor, reduction="sum").backward()
    expected = slope_from_the_right(lambda a: reference.entmax_loss(z, y, a).sum(), alpha)
    assert_close(tensor.grad, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_index", [-100, 1])
@pytest.mark.parametrize("n_classes", [5, LONG, 1001])
@pytest.mark.parametrize("alpha", ALPHAS + [1.01])
def test_loss_gradient_is_p_less_the_target(alpha, n_classes, ignore_index, smoothing, each_path):
    for scale in (1e-3, 4):
        z = (scale * torch.randn(4, n_classes)).requires_grad_()
        y = torch.tensor([n_classes - 1, 1, ignore_index, 0])
        weights = torch.tensor([1.0, -2.0, 3.0, 0.0])
        expected = smoothed_slope(z.detach(), y, alpha, smoothing, ignore_index)
        expected = expected * weights.double().unsqueeze(1)
        options = {"ignore_index": ignore_index, "label_smoothing": smoothing}
        for _ in each_path():
            loss = entmax_loss(z, y, alpha, reduction="none", **options)
            gradient = torch.autograd.grad((loss * weights).sum(), z)[0]
            assert_close(gradient.double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n_classes", [64, LONG, 1001])
@pytest.mark.parametrize("alpha", [1.3, 1.5, 2, 3])
def test_loss_gradient_is_sparse(alpha, n_classes, float_type):
    z = (6 * torch.randn(4, n_classes, dtype=float_type)).requires_grad_()
    y = torch.tensor([0, 1, 2, n_classes - 1])
    entmax_loss(z, y, alpha).backward()
    supported = reference.entmax(z.detach(), alpha) > 0
    supported[range(4), y] = True
    assert not supported.all()
    assert not z.grad[~supported].any()


@pytest.mark.parametrize("options", OPTIONS, ids=OPTION_IDS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_loss_second_derivative_of_long_rows(alpha, options):
    z, direction = long_scores(3), torch.randn(3, LONG, dtype=torch.float64)
    y = torch.tensor([0, 1, LONG - 1])
    loss = entmax_loss(z, y, alpha, reduction="sum", **options)
    first = torch.autograd.grad(loss, z, create_graph=True)[0]
    second = torch.autograd.grad((first * direction).sum(), z)[0]
    expected = jacobian_product(z.detach(), direction, alpha)
    if options.get("ignore_index") == 1:
        expected[1] = 0
    assert_close(second, expected, atol=1e-9, rtol=1e-7)
    plain = torch.autograd.grad(entmax_loss(z, y, alpha, reduction="sum", **options), z)[0]
    assert_close(first, plain, atol=1e-12, rtol=0)


def test_loss_derivative_of_long_rows_by_their_own_alphas():
    alphas = torch.tensor([1.0001, 1.2, 1.5, 1.9, 2.0, 2.5, 4.0], dtype=torch.float64)
    alpha = alphas.unsqueeze(1).requires_grad_()
    z, y = long_scores(7), torch.arange(7)
    entmax_loss(z, y, alpha, reduction="sum").backward()
    for row, a in enumerate(alphas.tolist()):
        scores, target = z[row].detach(), y[row]
        by_alpha = slope(lambda a, s=scores, t=target: reference.entmax_loss(s, t, a), a, 1e-5)
        assert_close(alpha.grad[row, 0], by_alpha, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_loss_gradient_of_16_bit_scores(dtype, alpha, path):
    z = torch.randn(3, 17).to(dtype).requires_grad_()
    y = torch.tensor([0, 16, -100])
    entmax_loss(z, y, alpha, label_smoothing=0.1, reduction="sum").backward()
    assert z.grad.dtype == dtype
    expected = smoothed_slope(z.detach(), y, alpha, 0.1, -100)
    assert_close(z.grad.double(), expected, atol=1e-6, rtol=torch.finfo(dtype).eps)
