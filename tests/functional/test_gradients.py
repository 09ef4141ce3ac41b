"""First and second derivatives of entmax against finite differences and the oracle."""

import math

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, reference
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


@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_first_and_second_derivative_by_scores(alpha, dim):
    z = sparse_scores(3, 4)
    assert gradcheck(lambda z: entmax(z, alpha, dim), z)
    assert gradgradcheck(lambda z: entmax(z, alpha, dim), z)


@pytest.mark.parametrize("alpha", TENSOR_ALPHAS)
def test_first_derivative_by_alpha(alpha):
    z = sparse_scores(3, 5)
    assert gradcheck(entmax, (z, as_tensor(alpha, 3, 1)))
    assert gradcheck(entmax, (z, as_tensor(alpha)))  # one alpha gathers from every row


@pytest.mark.parametrize("alpha", [1.3, 1.5, 1.9, 2.5])
def test_second_derivative_by_alpha(alpha):
    assert gradgradcheck(entmax, (sparse_scores(2, 4), as_tensor(alpha, 2, 1)))


def test_derivative_by_one_alpha_per_head():
    z = sparse_scores(2, 3, 2, 4)
    alpha = torch.tensor([1.2, 1.5, 2.4], dtype=torch.float64).view(3, 1, 1).requires_grad_()
    assert gradcheck(entmax, (z, alpha))


@pytest.mark.parametrize("dim", [0, 1])
def test_derivative_by_alpha_in_another_dim(dim):
    z = sparse_scores(2, 3, 2)
    shape = [2, 3, 2]
    shape[dim] = 1
    assert gradcheck(lambda z, alpha: entmax(z, alpha, dim), (z, as_tensor(1.4, *shape)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n_classes", [6, LONG])
@pytest.mark.parametrize("alpha", [1.0, 1 + 1e-9, 1 + 1e-7, 1 + 1e-5])
def test_derivative_by_alpha_at_its_lower_end(alpha, n_classes, dtype):
    # alpha - 1 is a divisor: float32 rounding must not be divided by it
    z = torch.randn(3, n_classes, dtype=dtype)
    weights = torch.randn_like(z)
    tensor = as_tensor(alpha)
    (entmax(z, tensor) * weights).sum().backward()

    expected = slope_from_the_right(lambda a: (reference.entmax(z, a) * weights).sum(), alpha)
    assert_close(tensor.grad, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_derivative_of_long_rows(alpha):
    z, weights = long_scores(3), torch.randn(3, LONG, dtype=torch.float64)
    (entmax(z, alpha) * weights).sum().backward()
    assert_close(z.grad, jacobian_product(z.detach(), weights, alpha), atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_second_derivative_of_long_rows(alpha):
    z, (weights, direction) = long_scores(2), torch.randn(2, 2, LONG, dtype=torch.float64)
    # the sine gives sparsemax, which is piecewise linear, a second derivative
    value = (entmax(z, alpha).sin() * weights).sum()
    first = torch.autograd.grad(value, z, create_graph=True)[0]
    second = torch.autograd.grad((first * direction).sum(), z)[0]

    def first_at(t):
        scores = z.detach() + t * direction
        return jacobian_product(scores, weights * reference.entmax(scores, alpha).cos(), alpha)

    expected = slope(first_at, 0.0)
    assert_close(second, expected, atol=1e-6, rtol=1e-4)


def test_derivative_of_long_rows_by_their_own_alphas():
    # both sides of 2 in one call
    alphas = torch.tensor([1.0001, 1.2, 1.5, 1.9, 2.0, 2.5, 4.0], dtype=torch.float64)
    alpha = alphas.unsqueeze(1).requires_grad_()
    z, weights = long_scores(7), torch.randn(7, LONG, dtype=torch.float64)
    (entmax(z, alpha) * weights).sum().backward()
    for row, a in enumerate(alphas.tolist()):
        scores, w = z[row].detach(), weights[row]
        by_alpha = slope(lambda a, scores=scores, w=w: (reference.entmax(scores, a) * w).sum(), a)
        assert_close(alpha.grad[row, 0], by_alpha, atol=1e-6, rtol=1e-5)
        assert_close(z.grad[row], jacobian_product(scores, w, a), atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("n_classes", [1, 17, LONG])
@pytest.mark.parametrize("alpha", ALPHAS + [1.01])
def test_float32_derivative_equals_the_oracle(alpha, n_classes, path):
    for scale in (1e-3, 1, 10):
        z = (scale * torch.randn(3, n_classes)).requires_grad_()
        weights = torch.randn(3, n_classes)
        (entmax(z, alpha) * weights).sum().backward()
        expected = jacobian_product(z.detach(), weights, alpha).float()
        assert_close(z.grad, expected, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("alpha", [1.01, 1.3, 1.5, 2, 2.5, 4])
def test_float32_derivative_at_the_edge_of_the_support(alpha, path):
    # the second score enters the support: above alpha = 2 its slope has no bound
    inside = torch.logspace(-7, -1, 30)
    z = torch.stack([torch.zeros(30), (inside - 1) / (alpha - 1), -inside], 1).requires_grad_()
    weights = torch.tensor([[1.0, 0.3, -0.5]])
    (entmax(z, alpha) * weights).sum().backward()
    expected = jacobian_product(z.detach(), weights, alpha).float()
    assert_close(z.grad, expected, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_16_bit_derivative_equals_the_oracle(dtype, alpha, path):
    z = torch.randn(9, 17).to(dtype).requires_grad_()
    weights = torch.randn(9, 17).to(dtype)
    probs = entmax(z, alpha)
    probs.backward(weights)
    assert z.grad.dtype == dtype
    # backward sees the rounded probabilities, and rounds once more at its end only
    jacobian = reference.entmax_jacobian(probs.detach(), alpha)
    expected = (jacobian @ weights.double().unsqueeze(-1)).squeeze(-1)
    eps = torch.finfo(dtype).eps
    if alpha > 1:  # softmax is torch's own
        assert_close(z.grad.double(), expected, atol=1e-6, rtol=eps)
    true = jacobian_product(z.detach(), weights, alpha)
    assert_close(z.grad.double(), true, atol=4 * eps, rtol=4 * eps)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_entries_have_zero_gradient(alpha):
    z = torch.randn(3, 7, dtype=torch.float64)
    masked = torch.arange(7) % 3 == 1
    z = z.masked_fill(masked, -math.inf).requires_grad_()
    weights = torch.randn(3, 7, dtype=torch.float64)
    (entmax(z, alpha) * weights).sum().backward()
    assert not z.grad[:, masked].any()
    kept = jacobian_product(z.detach()[:, ~masked], weights[:, ~masked], alpha)
    assert_close(z.grad[:, ~masked], kept, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS + ["tensor"])
def test_second_derivative_is_finite_where_probs_are_zero(alpha):
    z = torch.tensor([[9.0, 0, -9, -99], [0, 0, -0.4, -math.inf], [-math.inf] * 4])
    z = z.double().requires_grad_()
    inputs = [z]
    if alpha == "tensor":
        alpha = torch.tensor([[1.3], [1.5], [2.5]], dtype=torch.float64, requires_grad=True)
        inputs.append(alpha)
    weights = torch.randn(3, 4, dtype=torch.float64)
    value = (entmax(z, alpha).sin() * weights).sum()
    first = torch.autograd.grad(value, inputs, create_graph=True)
    second = torch.autograd.grad(sum((g * g.detach().cos()).sum() for g in first), inputs)
    for gradient in first + second:
        assert gradient.isfinite().all()
    assert not first[0][2].any()
    assert not second[0][2].any()


@pytest.mark.parametrize("recording", [torch.no_grad, torch.enable_grad])
def test_forward_derivatives_are_refused_not_dropped(recording):
    with recording(), forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.zeros(2, 3), torch.ones(2, 3))
        with pytest.raises(NotImplementedError):
            entmax(dual, 1.5)
