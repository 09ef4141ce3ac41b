"""First and second derivatives of entmax and entmax_loss against finite differences."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, entmax_loss, reference

ALPHAS = [1, 1.3, 1.5, 2, 2.5, 3]
# alpha tensors take the general path at every value, also at 1.5 and 2
TENSOR_ALPHAS = [1.0001, 1.01, 1.3, 1.5, 1.9, 2.2, 3.0]
LONG = 600  # from 512 entries on, only candidates for the support are solved


def sparse_scores(*shape):
    """Scores whose distributions hold zeros, with no entry within 1e-4 of the support's edge."""
    while True:
        z = 1.5 * torch.randn(shape, dtype=torch.float64)
        nudged = [entmax(z + d * torch.randn_like(z), a) > 0 for a in ALPHAS[1:] for d in (0, 1e-3)]
        same = all(torch.equal(p, q) for p, q in zip(nudged[::2], nudged[1::2]))
        if same and (len(z) < 2 or not nudged[0].all()):
            return z.requires_grad_()


def long_scores(n_rows):
    """Rows with a support of a few dozen entries, of which one lies in the last, partial group."""
    z = torch.randn(n_rows, LONG, dtype=torch.float64)
    z[:, ::40] += 4
    z[:, -1] += 4
    return z.requires_grad_()


def as_tensor(alpha, *shape):
    return torch.full(shape, alpha, dtype=torch.float64, requires_grad=True)


def jacobian_product(z, weights, alpha):
    jacobian = reference.entmax_jacobian(reference.entmax(z, alpha), alpha)
    return (jacobian @ weights.double().unsqueeze(-1)).squeeze(-1)


def slope(function, x, step=1e-6):
    return (function(x + step) - function(x - step)) / (2 * step)


def slope_from_the_right(function, alpha):
    """The derivative where alpha - step may lie below 1; h and h / 2 cancel the first error."""
    # the oracle divides by alpha - 1 and has no digits to spare between 1 and 1 + 1e-6
    start = 1.0 if alpha < 1 + 1e-6 else alpha
    coarse, fine = ((function(start + h) - function(start)) / h for h in (2e-4, 1e-4))
    return 2 * fine - coarse


# --- entmax ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("n_classes", [6, LONG])
@pytest.mark.parametrize("alpha", [1.0, 1 + 1e-9, 1 + 1e-7, 1 + 1e-5])
def test_derivative_by_alpha_at_its_lower_end(alpha, n_classes):
    z = torch.randn(3, n_classes, dtype=torch.float64)
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
def test_float32_derivative_equals_the_oracle(alpha, n_classes):
    for scale in (1e-3, 1, 10):
        z = (scale * torch.randn(3, n_classes)).requires_grad_()
        weights = torch.randn(3, n_classes)
        (entmax(z, alpha) * weights).sum().backward()
        expected = jacobian_product(z.detach(), weights, alpha).float()
        assert_close(z.grad, expected, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_derivative_equals_the_oracle(dtype, alpha):
    z = torch.randn(3, 17).to(dtype).requires_grad_()
    weights = torch.randn(3, 17).to(dtype)
    (entmax(z, alpha) * weights).sum().backward()
    assert z.grad.dtype == dtype
    expected = jacobian_product(z.detach(), weights, alpha)
    # backward sees probabilities that were rounded to 16 bits
    eps = torch.finfo(dtype).eps
    assert_close(z.grad.double(), expected, atol=4 * eps, rtol=4 * eps)


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


# --- entmax_loss -------------------------------------------------------------------------------


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


@pytest.mark.parametrize("options", OPTIONS, ids=OPTION_IDS)
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


@pytest.mark.parametrize("options", OPTIONS, ids=OPTION_IDS)
@pytest.mark.parametrize("alpha", TENSOR_ALPHAS)
def test_loss_derivative_by_alpha(alpha, options):
    z, y = sparse_scores(3, 4), torch.tensor(TARGET)

    def loss(z, alpha):
        return entmax_loss(z, y, alpha, reduction="none", **options)

    assert gradcheck(loss, (z, as_tensor(alpha, 3, 1)))
    assert gradcheck(loss, (z, as_tensor(alpha)))


@pytest.mark.parametrize("options", OPTIONS, ids=OPTION_IDS)
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


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_index", [-100, 1])
@pytest.mark.parametrize("n_classes", [5, LONG, 10007])
@pytest.mark.parametrize("alpha", ALPHAS + [1.01])
def test_loss_gradient_is_p_less_the_target(alpha, n_classes, ignore_index, label_smoothing):
    for scale in (1e-3, 1, 6):
        z = (scale * torch.randn(4, n_classes)).requires_grad_()
        y = torch.tensor([n_classes - 1, 1, ignore_index, 0])
        weights = torch.tensor([1.0, -2.0, 3.0, 0.0])
        options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
        loss = entmax_loss(z, y, alpha, reduction="none", **options)
        (loss * weights).sum().backward()
        expected = smoothed_slope(z.detach(), y, alpha, label_smoothing, ignore_index)
        expected = expected * weights.double().unsqueeze(1)
        assert_close(z.grad.double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n_classes", [64, LONG, 10007])
@pytest.mark.parametrize("alpha", [1.3, 1.5, 2, 3])
def test_loss_gradient_is_sparse(alpha, n_classes):
    z = (6 * torch.randn(4, n_classes, dtype=torch.float64)).requires_grad_()
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
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_loss_gradient_of_16_bit_scores(dtype, alpha):
    z = torch.randn(3, 17).to(dtype).requires_grad_()
    y = torch.tensor([0, 16, -100])
    entmax_loss(z, y, alpha, label_smoothing=0.1, reduction="sum").backward()
    assert z.grad.dtype == dtype
    expected = smoothed_slope(z.detach(), y, alpha, 0.1, -100)
    assert_close(z.grad.double(), expected, atol=1e-6, rtol=torch.finfo(dtype).eps)
