"""Above alpha = 2 probabilities are roots of tiny distances: an oracle in decimal arithmetic."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, entmax_loss
from fairseq_entmax.functional.mapping import entmax_dense

ALPHAS = [2.5, 4, 6, 8, 15, 50, 100, 1000]


def power(base, exponent):
    return (base.ln() * exponent).exp() if base > 0 else Decimal(0)


def exact_entmax(scores, alpha):
    """The definition with the probability r of the support's smallest entry e as the unknown:
    tau = gap e - r^gap, and distances to it are sums of positive numbers, so 40 digits are enough.
    """
    with localcontext() as context:
        context.prec = 40
        gap = Decimal(alpha) - 1
        z = [Decimal(v) for v in scores]

        def probs(edge, r):
            distance = power(r, gap)
            return [power(gap * (v - edge) + distance, 1 / gap) if v >= edge else 0 for v in z]

        edge = next(v for v in sorted(set(z)) if sum(probs(v, Decimal(0))) < 1)
        low, high = Decimal(0), Decimal(1)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(probs(edge, middle)) < 1 else (low, middle)
        return torch.tensor([float(p) for p in probs(edge, high)], dtype=torch.float64)


@pytest.mark.parametrize(("alpha", "gap"), [(8, "0.999"), (100, "0.3")])
def test_the_oracle_is_the_definition(alpha, gap):
    """p = [(alpha - 1) z - tau]_+^(1 / (alpha - 1)) by bisection for tau, in 400 digits."""
    with localcontext() as context:
        context.prec = 400
        a = Decimal(alpha) - 1
        z = [Decimal(1), 1 - Decimal(gap) / a]
        low, high = a - 1, a
        for _ in range(1200):
            tau = (low + high) / 2
            probs = [power(a * v - tau, 1 / a) for v in z]
            low, high = (tau, high) if sum(probs) >= 1 else (low, tau)
    expected = torch.tensor([float(p) for p in probs], dtype=torch.float64)
    assert_close(exact_entmax(z, alpha), expected, atol=1e-14, rtol=0)


def hard_rows(alpha):
    """Scores whose last entry in the support is near the threshold, tied, or many."""
    unit = 1 / (alpha - 1)
    gaps = (0.999, 0.9, 0.3, 1e-3)
    rows = [[1, 1 - gap * unit, 1 - 2 * unit, 1 - 3 * unit] for gap in gaps]
    rows += [[0.5, 0.5, 0.5, 0.5], [3, 3 - 0.5 * unit, 3 - 0.5 * unit, 3 - 0.7 * unit]]
    rows += [[0.1 * unit, 1e-20, 2e-20, 0], [2, -math.inf, 2 - 0.9 * unit, -5]]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("dense", [False, True], ids=["entmax", "entmax_dense"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_probabilities_equal_the_oracle(alpha, dense, float_type):
    z = hard_rows(alpha).to(float_type)
    probs = (entmax_dense if dense else entmax)(z, float(alpha))
    for row, scores in zip(probs, z.tolist()):
        finite = [v if v > -math.inf else -1e9 for v in scores]
        expected = exact_entmax(finite, alpha)
        error = float((row.double() - expected).abs().max() / expected.max())
        assert error <= 2e-6 if float_type == torch.float32 else error <= 1e-12


@pytest.mark.parametrize("n", [40, 3000])
@pytest.mark.parametrize("alpha", [8, 100])
def test_wide_rows(alpha, n, float_type):
    z = 3 * torch.randn(3, n, dtype=torch.float64).to(float_type)
    z[2] /= alpha  # a large support
    z[1, :5] = z[1].max() + 0.2 / alpha * torch.rand(5, dtype=float_type)
    probs = entmax(z, float(alpha))
    for row, scores in zip(probs, z):
        expected = exact_entmax_of_candidates(scores, alpha)
        error = float((row.double() - expected).abs().max() / expected.max())
        assert error <= 2e-6


def exact_entmax_of_candidates(scores, alpha):
    """Entries further than 1 / (alpha - 1) below the largest have no probability; few others."""
    inside = scores.double() > scores.double().max() - 1 / (alpha - 1)
    order = scores.double().masked_fill(~inside, -math.inf).argsort(descending=True)
    order = order[: int(inside.sum())]
    expected = torch.zeros(len(scores), dtype=torch.float64)
    expected[order] = exact_entmax(scores[order].tolist(), alpha)
    return expected


def exact_jacobian_product(scores, weights, alpha):
    """s_j (w_j - sum s_i w_i / sum s_i) with s = p^(2 - alpha) on the support."""
    with localcontext() as context:
        context.prec = 100
        probs = [Decimal(p) for p in exact_entmax(scores, alpha).tolist()]
        slopes = [power(p, 2 - Decimal(alpha)) for p in probs]
        weights = [Decimal(w) for w in weights]
        mean = sum(s * w for s, w in zip(slopes, weights)) / sum(slopes)
        products = [float(s * (w - mean)) for s, w in zip(slopes, weights)]
    return torch.tensor(products, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [2.5, 4, 8, 15])
def test_gradient_equals_the_jacobian(alpha, float_type):
    """The rows' sums vanish, and slopes of very different size do not cancel each other."""
    z = hard_rows(alpha)[3:6].to(float_type).requires_grad_()
    weights = torch.randn(3, 4, dtype=torch.float64)
    (grad,) = torch.autograd.grad((entmax(z, float(alpha)) * weights.to(float_type)).sum(), z)
    pairs = zip(z.tolist(), weights.to(float_type).tolist())
    expected = torch.stack([exact_jacobian_product(*pair, alpha) for pair in pairs])
    assert_close(
        grad.double(), expected, atol=1e-5, rtol=2e-4 if float_type == torch.float32 else 1e-6
    )


@pytest.mark.parametrize("alpha", [3.0, 50.0, 1e6])
def test_gradient_for_alpha_is_finite_with_ties(alpha, float_type):
    z = torch.tensor([[0.0, 0, -1], [1, 1, 1], [2, 0, 1]], dtype=float_type)
    exponent = torch.tensor(alpha, dtype=float_type, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 4.0], dtype=float_type)
    (grad,) = torch.autograd.grad((entmax(z, exponent) * weights).sum(), exponent)
    assert_close(grad, torch.zeros_like(grad), atol=1e-6, rtol=0)  # ties stay ties


@pytest.mark.parametrize("alpha", [8, 100])
def test_loss_of_a_large_alpha(alpha, float_type):
    """L = p.z + H(p) - z_y with the oracle's p."""
    z = hard_rows(alpha)[:6].to(float_type)
    y = torch.tensor([0, 1, 2, 1, 3, 1])
    loss = entmax_loss(z, y, float(alpha), reduction="none")
    p = torch.stack([exact_entmax(row, alpha) for row in z.tolist()])
    entropy = (p - p**alpha).sum(1) / (alpha * (alpha - 1))
    expected = (p * z.double()).sum(1) + entropy - z.double()[torch.arange(6), y]
    assert_close(
        loss.double(), expected, atol=1e-7 if float_type == torch.float32 else 1e-14, rtol=1e-6
    )
