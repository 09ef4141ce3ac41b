"""The oracle against algorithms that share no line with it, and against the paper's claims."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fairseq_entmax.functional import reference

ALPHAS = [1, 1.01, 1.3, 1.5, 2, 2.5, 4]
KINDS = ["random", "peaked", "tied", "uniform", "shifted", "masked"]


def scores_of(kind, n_classes=40):
    z = torch.randn(5, n_classes, dtype=torch.float64)
    if kind == "peaked":
        return 20 * z
    if kind == "tied":
        return torch.randint(-2, 3, z.shape).double() / 4
    if kind == "uniform":
        return torch.full_like(z, 0.7)
    if kind == "shifted":
        return z - 1e4
    if kind == "masked":
        return z.masked_fill(torch.arange(n_classes) % 3 == 1, -math.inf)
    return z


def objective(z, p, alpha):
    return (p * z).sum(-1) + reference.tsallis_entropy(p, alpha)


@pytest.mark.parametrize("kind", KINDS)
def test_bisection_equals_sorting(kind):
    z = scores_of(kind)
    # differences of shifted scores keep 12 digits
    assert_close(reference.entmax(z, 2), reference.sparsemax(z), atol=1e-11, rtol=0)
    if kind != "masked":  # Algorithm 2 computes inf - inf
        assert_close(reference.entmax(z, 1.5), reference.entmax15(z), atol=1e-11, rtol=0)


@pytest.mark.parametrize("n_classes", [1, 2, 3, 10_000])
def test_bisection_equals_sorting_at_every_size(n_classes):
    z = scores_of("random", n_classes)
    assert_close(reference.entmax(z, 2), reference.sparsemax(z), atol=1e-12, rtol=0)
    assert_close(reference.entmax(z, 1.5), reference.entmax15(z), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_equals_entmax_1_3(kind):
    peer = pytest.importorskip("entmax")
    z = scores_of(kind)
    assert_close(reference.entmax(z, 2), peer.sparsemax(z, dim=-1), atol=1e-11, rtol=0)
    assert_close(reference.entmax(z, 1.5), peer.entmax15(z, dim=-1), atol=1e-11, rtol=0)
    bisected = peer.entmax_bisect(z, alpha=1.3, n_iter=100)
    assert_close(reference.entmax(z, 1.3), bisected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_alpha_1_is_softmax(kind):
    z = scores_of(kind)
    assert_close(reference.entmax(z, 1), torch.softmax(z, -1), atol=1e-15, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_alpha_near_1_is_nearly_softmax(kind):
    z = scores_of(kind)
    # d log p / d alpha is log(p)^2 / 2: below 1,500 where p exceeds 1e-24
    assert_close(reference.entmax(z, 1 + 1e-9), torch.softmax(z, -1), atol=1e-8, rtol=0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_masked_entry_equals_no_entry(kind, alpha):
    z = scores_of(kind)
    longer = torch.cat([z[:, :7], torch.full((5, 2), -math.inf), z[:, 7:]], 1)
    probs = reference.entmax(longer, alpha)
    assert not probs[:, 7:9].any()
    kept = torch.cat([probs[:, :7], probs[:, 9:]], 1)
    assert_close(kept, reference.entmax(z, alpha), atol=1e-13, rtol=0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_an_all_masked_row_is_zeros(alpha):
    z = torch.tensor([[0.3, -1.0], [-math.inf, -math.inf]])
    assert reference.entmax(z, alpha)[1].tolist() == [0, 0]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", ["random", "peaked", "tied", "uniform"])
def test_no_point_of_the_simplex_beats_the_optimum(kind, alpha):
    z = scores_of(kind, n_classes=6)
    p = reference.entmax(z, alpha)
    assert (p >= 0).all()
    assert_close(p.sum(-1), torch.ones(5, dtype=p.dtype))
    best = objective(z, p, alpha)
    for concentration in (0.1, 1.0, 10.0):
        simplex = torch.distributions.Dirichlet(torch.full((6,), concentration).double())
        far = simplex.sample((400, 5))
        for step in (1.0, 0.1, 1e-3):  # near points see a threshold that is slightly off
            rivals = (1 - step) * p + step * far
            assert (objective(z, rivals, alpha) <= best + 1e-13).all()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_entropy_of_the_uniform_distribution(n):
    uniform = torch.full((n,), 1 / n, dtype=torch.float64)
    one = reference.tsallis_entropy(uniform, 1).item()
    half = reference.tsallis_entropy(uniform, 1.5).item()
    two = reference.tsallis_entropy(uniform, 2).item()
    assert one == pytest.approx(math.log(n))
    assert half == pytest.approx(4 / 3 * (1 - n**-0.5))
    assert two == pytest.approx((1 - 1 / n) / 2)


def test_entropy_tends_to_shannon():
    p = torch.softmax(scores_of("random"), -1)
    assert_close(
        reference.tsallis_entropy(p, 1 + 1e-6), reference.tsallis_entropy(p, 1), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_jacobian_equals_finite_differences(alpha):
    z = torch.randn(9, dtype=torch.float64)
    step = 1e-6 * torch.eye(9, dtype=torch.float64)
    # one row per nudged score; the jacobian is symmetric
    numeric = (reference.entmax(z + step, alpha) - reference.entmax(z - step, alpha)) / 2e-6
    jacobian = reference.entmax_jacobian(reference.entmax(z, alpha), alpha)
    assert_close(jacobian, numeric, atol=1e-8, rtol=1e-6)


def test_jacobian_at_alpha_1_is_that_of_softmax():
    z = torch.randn(9, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: torch.softmax(x, -1), z)
    assert_close(reference.entmax_jacobian(torch.softmax(z, -1), 1), jacobian)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_at_alpha_1_is_cross_entropy(label_smoothing):
    z = scores_of("random")
    y = torch.tensor([0, 39, 3, -100, 7])
    loss = reference.entmax_loss(z, y, 1, label_smoothing=label_smoothing)
    theirs = F.cross_entropy(z, y, reduction="none", label_smoothing=label_smoothing)
    assert_close(loss, theirs)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_loss_slope_is_the_probability_less_the_target(alpha):
    z = torch.randn(9, dtype=torch.float64)
    y = torch.full((9,), 4)
    step = 1e-6 * torch.eye(9, dtype=torch.float64)
    above = reference.entmax_loss(z + step, y, alpha)
    below = reference.entmax_loss(z - step, y, alpha)
    slope = reference.entmax(z, alpha) - F.one_hot(torch.tensor(4), 9)
    assert_close((above - below) / 2e-6, slope, atol=1e-8, rtol=0)


def test_loss_smooths_over_all_classes_but_the_ignored_one():
    z = scores_of("random", 4)
    y = torch.tensor([0, 1, 2, 3, 0])
    plain = reference.entmax_loss(z, y, 1.5, ignore_index=1)
    smooth = reference.entmax_loss(z, y, 1.5, ignore_index=1, label_smoothing=0.3)
    for row in range(5):
        z0, z1, z2, z3 = z[row].tolist()
        expected = 0.3 * ([z0, z1, z2, z3][y[row]] - (z0 + z2 + z3) / 3)
        expected = 0 if y[row] == 1 else expected
        assert (smooth - plain)[row].item() == pytest.approx(expected)
