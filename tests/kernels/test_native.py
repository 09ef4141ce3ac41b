"""What the builds of the C kernels do besides their contract: layout, threads, rounding."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, entmax_loss, reference
from fairseq_entmax.functional.loss import entmax_loss_rows
from fairseq_entmax.kernels import native
from fairseq_entmax.kernels.native import library
from tests.kernels.builds import BROKEN, assert_rows_close, rows_of_every_kind, target_of, use

HALF_TYPES = pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"]
)
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


def gradient(outputs, z, grad):
    (result,) = torch.autograd.grad(outputs, z, grad)
    return result


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
    assert_rows_close(entmax(z, alpha), expected, 5e-7 * expected.amax(1))
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


@pytest.mark.parametrize("alpha", [1.5, 2])
@pytest.mark.parametrize("n", [3, 40, 300])
def test_a_nan_among_masked_scores_breaks_its_row(build, n, alpha):
    z = torch.full((9, n), -math.inf)
    z[1] = 0.0
    z[4, n // 2] = math.nan
    probs = entmax(z, alpha)
    assert probs[4].isnan().all()
    probs[4] = 0
    assert_close(probs.sum(1), torch.zeros(9).index_fill_(0, torch.tensor(1), 1.0))
