"""Every back end, through its contract, against the reference on every kind of row."""

import math
from functools import lru_cache
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, reference
from fairseq_entmax.kernels import device, native, plain
from fairseq_entmax.kernels.native import library
from tests.kernels.builds import BROKEN, assert_rows_close, rows_of_every_kind, target_of, use

LENGTHS = [1, 2, 15, 16, 17, 64, 257, 512, 513, 1000, 10007]
ALPHAS = [1.5, 2, 1.2, 3]
ROW_ALPHAS = {
    "per-row": (1.5, 2, 1.2, 3, 1.01, 1.5, 2.5, 2),
    "per-row up to 2": (1.5, 2, 1.2, 1.9, 1.01, 1.001, 1.99, 2),
}
# half the distance between neighbours, relative to a value and (float16) near zero
ROUNDING = {
    torch.float64: (0, 0),
    torch.float32: (0, 0),
    torch.bfloat16: (2.0**-8, 1e-30),
    torch.float16: (2.0**-11, 2.0**-25),
}
CASES = [(a, n, torch.float32) for a in ALPHAS for n in (1, 16, 64, 257, 512, 1000)]
CASES += [(a, n, torch.float32) for a in (1.5, 2) for n in (2, 15, 17, 513)]  # lanes of 16 rows
CASES += [("per-row", n, torch.float32) for n in LENGTHS]
OTHER_TYPES = [t for t in ROUNDING if t != torch.float32]
CASES += [("per-row", n, dtype) for n in (1, 17, 257, 1000) for dtype in OTHER_TYPES]
CASES += [(a, n, torch.float64) for a in (1.5, 2) for n in (17, 1000)]
CASES += [("per-row up to 2", n, torch.float32) for n in (1, 17, 257, 1000, 10007)]
CASES += [("per-row up to 2", 257, dtype) for dtype in OTHER_TYPES]
CASE = pytest.mark.parametrize("alpha, n, dtype", CASES, ids=str)
CAPACITIES = pytest.mark.parametrize("capacity", [3, 512])


# on an accelerator a device takes what lies there; here it computes with what a CPU holds
ON_DEVICE = SimpleNamespace(**vars(device))
ON_DEVICE.takes = lambda z: z.dtype != torch.float64


@pytest.fixture(params=["plain", "device", *library.BUILDS])
def kernels(request, monkeypatch):
    asked = request.node.callspec.params.get("alpha", 1.5)
    if request.param in ("plain", "device"):
        if request.param == "device" and max(alphas_of(asked)) > 2:
            pytest.skip("accelerators solve alpha > 2 in float64, by plain torch")
        yield plain if request.param == "plain" else ON_DEVICE
        return
    use(request.param, monkeypatch)
    yield native
    library.library.cache_clear()


def rows(kernels, n, dtype):
    z = rows_of_every_kind(n, dtype)
    if not kernels.takes(z):
        pytest.skip(f"{kernels.__name__} takes no {dtype}")
    return z


def exponents(alpha):
    """alpha and closed as the contract wants them."""
    if alpha in ROW_ALPHAS:
        return torch.tensor(ROW_ALPHAS[alpha], dtype=torch.float64).unsqueeze(1), None
    tensor = torch.full((1, 1), alpha, dtype=torch.float64)
    return tensor, float(alpha) if alpha in (1.5, 2) else None


def alphas_of(alpha):
    return ROW_ALPHAS.get(alpha, (alpha,) * 8)


@lru_cache(maxsize=None)
def expected_probs(n, alpha, dtype):
    z = rows_of_every_kind(n, dtype)
    return torch.stack([reference.entmax(row, a) for row, a in zip(z, alphas_of(alpha))])


@lru_cache(maxsize=None)
def expected_loss(n, alpha, dtype):
    z = rows_of_every_kind(n, dtype)
    each = zip(z[:-1], target_of(z), alphas_of(alpha))
    loss = [reference.entmax_loss(row, y, a) for row, y, a in each]
    return torch.stack([*loss, torch.zeros((), dtype=torch.float64)])  # the last is all masked


def tolerance(alpha, expected, dtype):
    """For each row: the kernels' error, in units of the row's peak, and the type's rounding."""
    peak = expected.abs().amax(1)
    relative, absolute = ROUNDING[dtype]
    own = 1e-9 if dtype == torch.float64 else 5e-7 if alpha in (1.5, 2) else 2e-6
    return (own + relative) * peak + absolute


@CASE
def test_entmax(kernels, alpha, n, dtype):
    z = rows(kernels, n, dtype)
    probs = kernels.entmax(z, *exponents(alpha))
    expected = expected_probs(n, alpha, dtype)
    assert probs.dtype == dtype and probs.shape == z.shape
    assert_rows_close(probs, expected, tolerance(alpha, expected, dtype))
    assert bool((probs[-1] == 0).all())
    assert bool((probs[z == -math.inf] == 0).all())


@CASE
def test_entmax_backward(kernels, alpha, n, dtype):
    z = rows(kernels, n, dtype)
    probs, grad = kernels.entmax(z, *exponents(alpha)), (torch.randn(z.shape) + 1).to(dtype)
    result = kernels.entmax_backward(probs, grad, *exponents(alpha))
    expected = torch.zeros(z.shape, dtype=torch.float64)
    for row, a in enumerate(alphas_of(alpha)[:-1]):
        inside = probs[row] > 0  # the Jacobian is zero outside of the support
        jacobian = reference.entmax_jacobian(probs[row, inside], a)
        expected[row, inside] = jacobian @ grad[row, inside].double()
    # the terms of which the result is the difference
    limit = tolerance(alpha, expected, dtype) + 5e-7 * grad.double().abs().amax(1)
    assert result.dtype == dtype
    assert_rows_close(result, expected, limit)
    assert bool((result[-1] == 0).all())


@CASE
def test_log_entmax(kernels, alpha, n, dtype):
    z = rows(kernels, n, dtype)
    log_probs = kernels.log_entmax(z, *exponents(alpha))
    assert log_probs.dtype == dtype
    probs, expected = log_probs.double().exp(), expected_probs(n, alpha, dtype)
    # p is rounded once more, and its logarithm like any number of its size
    relative, absolute = ROUNDING[dtype]
    half_step = max(relative, 2.0**-24) * (1 + log_probs.double().clamp(min=-200).abs())
    limit = tolerance(alpha, expected, dtype).unsqueeze(1) + half_step * probs + absolute
    assert bool(((probs - expected).abs() <= limit).all())


@CAPACITIES
@CASE
def test_solve_loss(kernels, alpha, n, dtype, capacity):
    z = rows(kernels, n, dtype)
    y = target_of(z)
    solved = kernels.solve_loss(z, y, *exponents(alpha), capacity)
    expected, probs = expected_loss(n, alpha, dtype), expected_probs(n, alpha, dtype)
    # a loss near 0 is a difference of terms of the size of 1
    assert_close(solved.loss.double(), expected, atol=1e-6, rtol=5e-7)
    at_target = probs.gather(1, y.unsqueeze(1)).squeeze(1)
    assert_close(solved.target_probs.double(), at_target, atol=2e-6, rtol=0)
    correct = z.gather(1, y.unsqueeze(1)).squeeze(1) >= z.amax(1)
    assert solved.correct.tolist() == [*correct[:-1].tolist(), False]
    # equal, but for probabilities that rounding may take for zero
    most, least = (probs > 0).sum(1), (probs > 1e-5 * probs.amax(1, keepdim=True)).sum(1)
    sizes = solved.support_size
    assert bool(((sizes >= least) & (sizes <= most + (most > 1))).all())
    capacity = min(capacity, solved.columns.shape[1])  # a back end may keep none
    assert torch.equal(solved.n_kept, torch.where(sizes <= capacity, sizes, -1).int())
    kept = torch.zeros_like(probs)
    for row, n_kept in enumerate(solved.n_kept):
        kept[row, solved.columns[row, : max(0, n_kept)].long()] = 1
    values = kept.clone()
    values[kept == 1] = torch.cat(
        [
            solved.values[row, :k][solved.columns[row, :k].argsort()].double()
            for row, k in enumerate(solved.n_kept.clamp(min=0))
        ]
    )
    assert_rows_close(values, probs * kept, tolerance(alpha, probs, torch.float32))


@CAPACITIES
@CASE
def test_loss_backward(kernels, alpha, n, dtype, capacity):
    z = rows(kernels, n, dtype)
    y, grad = target_of(z), torch.arange(8) / 4 - 0.9
    solved = kernels.solve_loss(z, y, *exponents(alpha), capacity)
    result = kernels.loss_backward(z, *exponents(alpha), solved, grad)
    expected = expected_probs(n, alpha, dtype).clone()
    expected[torch.arange(7), y[:7]] -= 1
    expected *= grad.double().unsqueeze(1)
    assert result.dtype == dtype
    assert_rows_close(result, expected, tolerance(alpha, expected, dtype) + 1e-9)


@CAPACITIES
@pytest.mark.parametrize("n", [17, 300, 1000])
@pytest.mark.parametrize("what", list(BROKEN))
@pytest.mark.parametrize("alpha", ALPHAS)
def test_broken_and_ignored_rows(kernels, alpha, what, n, capacity):
    z = rows(kernels, n, torch.float32)
    y = target_of(z)
    z[[1, 5, 6], -1] = BROKEN[what]
    y[[4, 5]] = -1
    probs = kernels.entmax(z, *exponents(alpha))
    assert probs.isnan().any(1).tolist() == [row in (1, 5, 6) for row in range(8)]
    assert probs[[1, 5, 6]].isnan().all()
    solved = kernels.solve_loss(z, y, *exponents(alpha), capacity)
    assert solved.loss.isnan().tolist() == [row in (1, 6) for row in range(8)]
    nothing = torch.tensor([4, 5, 7])
    for column in (solved.loss, solved.support_size, solved.target_probs, solved.correct):
        assert not column[nothing].any()
    assert solved.tau[nothing].tolist() == [math.inf] * 3
    result = kernels.loss_backward(z, *exponents(alpha), solved, torch.ones(8))
    assert result[[1, 6]].isnan().all()
    assert not result[nothing].any()
    assert result[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("n_rows", [0, 1, 16, 33])
def test_any_number_of_rows(kernels, n_rows):
    z, y = torch.randn(n_rows, 40), torch.zeros(n_rows, dtype=torch.long)
    if not kernels.takes(z):
        pytest.skip("not here")
    solved = kernels.solve_loss(z, y, *exponents(1.5), 8)
    assert_close(solved.loss.double(), reference.entmax_loss(z, y), atol=1e-6, rtol=1e-6)
    result = kernels.loss_backward(z, *exponents(1.5), solved, torch.ones(n_rows))
    assert result.shape == (n_rows, 40)


# supports of a few columns, of hundreds, and of all, which is no case for few candidates
LAYER_GAINS = (8.0, 0.5, 1e-3)


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("alpha", [1.5, 2.0, 1.2, 3.0])
def test_next_tokens(kernels, alpha, biased):
    generator = torch.Generator().manual_seed(1)
    for gain in LAYER_GAINS:
        weight = torch.randn(1003, 37, generator=generator) * gain / 6
        bias = torch.randn(1003, generator=generator) if biased else None
        x = torch.randn(7, 37, generator=generator)
        x[1] *= 1e-20
        x[2] *= 1e20
        x[3, 5] = math.nan
        layer = kernels.next_token_layer(weight, bias, alpha, 0.8)
        found = layer.next_tokens(x, 4, 10)
        scores = torch.nn.functional.linear(x, weight, bias).double() / 0.8
        expected = reference.entmax(scores[[0, 1, 4, 5, 6]], alpha)
        listed = found.log_probs[[0, 1, 4, 5, 6]].exp().double()
        tokens = found.tokens[[0, 1, 4, 5, 6]]
        assert tokens[:, :4].tolist() == [[0, 1, 2, 3]] * 5
        assert_close(listed, expected.gather(1, tokens) * (listed > 0), atol=2e-5, rtol=1e-4)
        best = expected[:, 4:].topk(10, 1).values
        assert_close(listed[:, 4:], best, atol=2e-5, rtol=1e-4)
        sizes = (expected > 0).sum(1)
        assert ((found.support_size[[0, 1, 4, 5, 6]] - sizes).abs() <= sizes * 0.01 + 1).all()
        assert not (found.log_probs[3] > -math.inf).any()  # NaN, or nothing


def test_next_tokens_when_the_weights_are_broken(kernels):
    weight = torch.eye(50)
    weight[20, 0] = math.inf
    found = kernels.next_token_layer(weight, None, 1.5, 1.0).next_tokens(torch.eye(50)[1:3], 2, 3)
    assert found.tokens.shape == (2, 5)


@pytest.mark.parametrize("n", [1, 30, 64, 513, 2000])
def test_gradient_of_an_alpha_for_each_row(kernels, n):
    if not hasattr(kernels, "entmax_backward_by_alpha"):
        pytest.skip("leaves it to operations with a graph")
    generator = torch.Generator().manual_seed(2)
    z, grad = torch.randn(2, 19, n, generator=generator)
    alpha = torch.linspace(1.06, 2, 19, dtype=torch.float64).unsqueeze(1)
    probs = kernels.entmax(z, alpha, None)
    by_scores, by_alpha = kernels.entmax_backward_by_alpha(probs, grad, alpha)
    wide, exponents = z.double().requires_grad_(), alpha.clone().requires_grad_()
    entmax(wide, exponents).backward(grad.double())  # float64: finite differences hold it right
    assert_close(by_scores.double(), wide.grad, atol=3e-6, rtol=1e-5)
    assert_close(by_alpha, exponents.grad, atol=2e-5, rtol=2e-5)
    steep = torch.full_like(alpha, 2.5)
    assert kernels.entmax_backward_by_alpha(probs, grad, steep) is None
