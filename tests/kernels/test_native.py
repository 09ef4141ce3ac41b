"""Every build of the C kernels against the reference, on every kind of row."""

import math
from functools import lru_cache

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, entmax_loss, reference
from fairseq_entmax.functional.loss import entmax_loss_rows
from fairseq_entmax.kernels import native
from fairseq_entmax.kernels.choose import choose
from fairseq_entmax.kernels.native import library
from tests.kernels.builds import (
    BROKEN,
    errors,
    exact_jacobian_product,
    rows_of_every_kind,
    use,
)

LENGTHS = [1, 2, 15, 16, 17, 64, 257, 512, 513, 1000, 10007]
ALPHAS = [1.5, 2, 1.2, 3]
ROW_ALPHAS = (1.5, 2, 1.2, 3, 1.01, 1.5, 2.5, 2)
# half the distance between neighbours, relative to a value and (float16) near zero
ROUNDING = {
    torch.float32: (0, 0),
    torch.bfloat16: (2.0**-8, 1e-30),
    torch.float16: (2.0**-11, 2.0**-25),
}
HALF_TYPES = pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"]
)
CASES = [(a, n, torch.float32) for a in ALPHAS for n in (1, 16, 64, 257, 512, 1000, 10007)]
CASES += [(a, n, torch.float32) for a in (1.5, 2) for n in (2, 15, 17, 513)]  # lanes of 16 rows
CASES += [("per-row", n, torch.float32) for n in LENGTHS]
CASES += [("per-row", n, d) for n in (1, 17, 257, 1000) for d in (torch.bfloat16, torch.float16)]
CASE = pytest.mark.parametrize("alpha, n, dtype", CASES, ids=str)
FEW = [(n, torch.float32) for n in (1, 17, 64, 512, 513)] + [(17, torch.float16)]
FEW_CASES = pytest.mark.parametrize("n, dtype", [*FEW, (513, torch.bfloat16)], ids=str)


@pytest.fixture(params=library.BUILDS)
def build(request, monkeypatch):
    use(request.param, monkeypatch)
    yield request.param
    library.library.cache_clear()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def alphas_of(alpha):
    return ROW_ALPHAS if alpha == "per-row" else (alpha,) * len(ROW_ALPHAS)


def as_argument(alpha):
    return torch.tensor(ROW_ALPHAS).unsqueeze(1) if alpha == "per-row" else alpha


def target_of(z):
    """Neither always the largest nor the smallest score; column 0 of every row is finite."""
    return torch.arange(len(z)) * 3 % z.shape[1] * (z[:, -1] > -math.inf)


@lru_cache(maxsize=None)
def expected_probs(n, alpha, dtype):
    z = rows_of_every_kind(n, dtype)
    return torch.stack([reference.entmax(row, a) for row, a in zip(z, alphas_of(alpha))])


@lru_cache(maxsize=None)
def expected_loss(n, alpha, dtype):
    z = rows_of_every_kind(n, dtype)
    rows = zip(z[:-1], target_of(z), alphas_of(alpha))
    loss = [reference.entmax_loss(row, y, a) for row, y, a in rows]
    return torch.stack([*loss, torch.zeros((), dtype=torch.float64)])  # the last is all masked


def tolerance(alpha, expected, dtype):
    """For each row: the kernels' error, in units of the row's peak, and the type's rounding."""
    peak = expected.abs().amax(1)
    relative, absolute = ROUNDING[dtype]
    return ((5e-7 if alpha in (1.5, 2) else 2e-6) + relative) * peak + absolute


def assert_rows_close(values, expected, limit):
    error = errors(values, expected)
    assert bool((error <= limit).all()), f"error {error.tolist()}, allowed {limit.tolist()}"


def gradient(outputs, z, grad):
    (result,) = torch.autograd.grad(outputs, z, grad)
    return result


@CASE
def test_probabilities_equal_the_reference(build, alpha, n, dtype):
    z = rows_of_every_kind(n, dtype)
    assert choose(z) is native
    probs = entmax(z, as_argument(alpha))
    expected = expected_probs(n, alpha, dtype)
    assert probs.dtype == dtype
    assert_rows_close(probs, expected, tolerance(alpha, expected, dtype))
    assert bool((probs[-1] == 0).all())
    assert bool((probs[z == -math.inf] == 0).all())


@CASE
def test_gradient_of_the_probabilities(build, alpha, n, dtype):
    z = rows_of_every_kind(n, dtype).requires_grad_()
    probs = entmax(z, as_argument(alpha))
    grad = (torch.randn(z.shape) + 1).to(dtype)
    grad_z = gradient(probs, z, grad)
    expected = exact_jacobian_product(probs.detach(), grad, alphas_of(alpha))
    # the terms of which the result is the difference
    limit = tolerance(alpha, expected, dtype) + 5e-7 * grad.double().abs().amax(1)
    assert grad_z.dtype == dtype
    assert_rows_close(grad_z, expected, limit)
    assert bool((grad_z[-1] == 0).all())


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_is_the_jacobian_of_the_paper(build, alpha):
    z = rows_of_every_kind(17)[:-1].requires_grad_()
    probs, grad = entmax(z, alpha), torch.randn(7, 17)
    jacobian = reference.entmax_jacobian(probs.detach(), alpha)
    expected = (jacobian @ grad.double().unsqueeze(2)).squeeze(2)
    assert_rows_close(gradient(probs, z, grad), expected, 1e-6 * grad.double().abs().amax(1))


@CASE
def test_loss_equals_the_reference(build, alpha, n, dtype):
    z = rows_of_every_kind(n, dtype)
    rows = entmax_loss_rows(z, target_of(z), as_argument(alpha))
    expected, probs = expected_loss(n, alpha, dtype), expected_probs(n, alpha, dtype)
    assert rows.loss.dtype == torch.float32
    # a loss near 0 is a difference of terms of the size of 1
    assert_close(rows.loss.double(), expected, atol=1e-6, rtol=5e-7)
    at_target = probs.gather(1, target_of(z).unsqueeze(1)).squeeze(1)
    assert_close(rows.target_probs.double(), at_target, atol=2e-6, rtol=0)
    correct = z.gather(1, target_of(z).unsqueeze(1)).squeeze(1) >= z.amax(1)
    assert rows.correct.tolist() == [*correct[:-1].tolist(), False]
    assert_support_sizes(rows.support_size, probs)


def assert_support_sizes(sizes, probs):
    """Equal, but for probabilities that rounding may take for zero."""
    most, least = (probs > 0).sum(1), (probs > 1e-5 * probs.amax(1, keepdim=True)).sum(1)
    assert bool(((sizes >= least) & (sizes <= most + (most > 1))).all())


@CASE
def test_gradient_of_the_loss(build, alpha, n, dtype):
    z = rows_of_every_kind(n, dtype).requires_grad_()
    y, grad = target_of(z.detach()), torch.arange(8) / 4 - 0.9
    loss = entmax_loss_rows(z, y, as_argument(alpha)).loss
    grad_z = gradient(loss, z, grad)
    expected = expected_probs(n, alpha, dtype).clone()
    expected[torch.arange(7), y[:7]] -= 1
    expected *= grad.double().unsqueeze(1)
    limit = tolerance(alpha, expected, dtype) + 1e-9
    assert grad_z.dtype == dtype
    assert_rows_close(grad_z, expected, limit)


@pytest.mark.parametrize("n", [17, 300, 1000])
def test_ignored_rows_cost_and_tell_nothing(build, n):
    z = rows_of_every_kind(n).requires_grad_()
    y = target_of(z.detach())
    y[::2] = -100
    rows = entmax_loss_rows(z, y)
    for column in rows:
        assert not column[::2].any()
    assert rows.loss[1] > 0
    grad_z = gradient(rows.loss.sum(), z, None)
    assert not grad_z[::2].any()
    assert grad_z[1].any()


@FEW_CASES
@pytest.mark.parametrize("alpha", [1.5, 2, 1.2])
@pytest.mark.parametrize("what", list(BROKEN))
def test_a_broken_row_stays_alone(build, what, alpha, n, dtype):
    clean = rows_of_every_kind(n, dtype)
    z = clean.clone()
    for row in (1, 5):
        z[row, -1] = BROKEN[what]
    others = [0, 2, 3, 4, 6, 7]
    probs = entmax(z, alpha)
    assert probs[[1, 5]].isnan().all()
    # sixteen short rows share their number of steps: the last bit may differ
    assert_close(probs[others], entmax(clean, alpha)[others], atol=4e-7, rtol=0)
    y = torch.zeros(8, dtype=torch.long)
    loss, grad_z = loss_and_gradient(z, y, alpha)
    clean_loss, clean_grad = loss_and_gradient(clean, y, alpha)
    assert loss[[1, 5]].isnan().all()
    assert grad_z[[1, 5]].isnan().all()
    assert torch.equal(loss[others], clean_loss[others])
    assert torch.equal(grad_z[others], clean_grad[others])


def loss_and_gradient(z, y, alpha):
    z = z.detach().requires_grad_()
    loss = entmax_loss(z, y, alpha, reduction="none")
    return loss.detach(), gradient(loss.sum(), z, None)


def strided(z):
    """The same scores with more than V between the rows; the gap holds NaN."""
    wide = torch.full((len(z), z.shape[1] + 7), math.nan, dtype=z.dtype)
    wide[:, 3 : 3 + z.shape[1]] = z
    return wide[:, 3 : 3 + z.shape[1]]


def across(z):
    """The same scores, stored by columns."""
    return z.t().contiguous().t()


@FEW_CASES
@pytest.mark.parametrize("alpha", [1.5, 1.2])
@pytest.mark.parametrize("layout", [strided, across])
def test_memory_layout_does_not_matter(build, layout, alpha, n, dtype):
    z = rows_of_every_kind(n, dtype)
    y = target_of(z)
    assert torch.equal(entmax(layout(z), alpha), entmax(z, alpha))
    for ours, theirs in zip(loss_and_gradient(layout(z), y, alpha), loss_and_gradient(z, y, alpha)):
        assert torch.equal(ours, theirs)
    leaf, other = z.clone().requires_grad_(), z.clone().requires_grad_()
    grad = torch.randn(z.shape).to(dtype)
    ours = gradient(entmax(leaf, alpha), leaf, layout(grad))
    assert torch.equal(ours, gradient(entmax(other, alpha), other, grad))


def test_one_row_read_many_times(build):
    row = rows_of_every_kind(40)[:1]
    assert torch.equal(entmax(row.expand(20, 40)), entmax(row).expand(20, 40))


@pytest.mark.parametrize("n_rows", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("n", [1, 16, 40, 300])
@pytest.mark.parametrize("alpha", [1.5, 2])
def test_any_number_of_rows(build, alpha, n, n_rows):
    z = 3 * torch.randn(n_rows, n)
    expected = reference.entmax(z, alpha)
    assert_rows_close(entmax(z, alpha), expected, tolerance(alpha, expected, z.dtype))
    y = torch.randint(n, (n_rows,))
    loss, grad_z = loss_and_gradient(z, y, alpha)
    exact = reference.entmax_loss(z, y, alpha)
    assert_close(loss.double(), exact, atol=1e-6, rtol=5e-7)
    expected[torch.arange(n_rows), y] -= 1
    assert_rows_close(grad_z, expected, 2e-6 * torch.ones(n_rows))


def everything(z, y, alpha):
    leaf = z.clone().requires_grad_()
    probs = entmax(leaf, alpha)
    grad_z = gradient(probs, leaf, torch.linspace(-1, 1, z.numel()).view(z.shape).to(z.dtype))
    return (probs.detach(), grad_z, *loss_and_gradient(z, y, alpha))


# above 32768 scores threads are used; 3 long rows are fewer than 5 threads
@pytest.mark.parametrize(
    "shape", [(3, 11000), (33, 1001), (700, 50)], ids=["few-rows", "rows", "short-rows"]
)
@pytest.mark.parametrize("alpha", [1.5, 2, 1.2, 3])
def test_threads_change_no_bit(build, threads, alpha, shape):
    z, y = 3 * torch.randn(shape), torch.randint(shape[1], shape[:1])
    threads(1)
    alone = everything(z, y, alpha)
    for count in (2, 5):
        threads(count)
        assert all(map(torch.equal, alone, everything(z, y, alpha)))


@HALF_TYPES
def test_every_16_bit_number_is_read_as_torch_reads_it(build, dtype):
    patterns = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    z = patterns.view(dtype)
    z = z[z.isfinite()].unsqueeze(1)
    y = torch.zeros(len(z), dtype=torch.long)
    solved = native.solve_loss(z, y, torch.full((1, 1), 1.5, dtype=torch.float64), 1.5, 1)
    assert torch.equal(solved.largest, z.squeeze(1).float())


@HALF_TYPES
def test_results_are_rounded_as_torch_rounds(build, dtype):
    """Through the gradient grad (p - e_y) of a row with p = (1, 0) and y = 1."""
    patterns = torch.arange(0, 1 << 16, 3, dtype=torch.int32).to(torch.int16)
    near = patterns.view(dtype).float()
    ties = (near + patterns.add(1).view(dtype).float()) / 2
    random = torch.randn(9999) * 10 ** torch.empty(9999).uniform_(-9, 6)
    grad = torch.cat([near, ties, ties.nextafter(torch.tensor(9e9)), random])
    z = torch.tensor([[9.0, 0.0]]).to(dtype).expand(len(grad), 2).contiguous()
    alpha = torch.full((1, 1), 1.5, dtype=torch.float64)
    solved = native.solve_loss(z, torch.ones(len(grad), dtype=torch.long), alpha, 1.5, 2)
    rounded = native.loss_backward(z, alpha, 1.5, solved, grad)[:, 0]
    expected = grad.to(dtype)
    same = (rounded == expected) | (rounded.isnan() & expected.isnan())
    assert bool(same.all()), grad[~same]
