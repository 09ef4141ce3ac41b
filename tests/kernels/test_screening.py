"""Screening with bfloat16 scores changes no result: the margin holds, also against an adversary."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fairseq_entmax.functional import linear_entmax_loss, reference
from fairseq_entmax.functional.output_layer import linear_entmax_loss_rows
from fairseq_entmax.kernels import native
from fairseq_entmax.kernels.choose import choose
from fairseq_entmax.kernels.native import screening
from fairseq_entmax.kernels.native.screening import Screen

N, V, D = 512, 900, 48
HALF_STEP = 2.0**-8  # bfloat16 numbers in [1, 2) are 2^-7 apart
ALPHAS = [1.3, 1.5, 2, 3]


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """Small layers too, on processors too that have to emulate products of bfloat16."""
    if choose(torch.zeros(1, 1)) is not native:
        pytest.skip("the compiled kernels are not there or switched off")
    monkeypatch.delenv(screening.SWITCH, raising=False)
    monkeypatch.setattr(screening, "_FEWEST_SCORES", 1)
    monkeypatch.setattr(screening, "has_bf16", lambda: True)


def random(scale=3.0, d=D):
    return scale * torch.randn(N, d), torch.randn(V, d) / d**0.5, torch.randn(V)


def large_norms():
    x, weight, bias = random()
    return 30 * x, 30 * weight, bias


def tiny_values():
    x, weight, bias = random()
    return 1e-18 * x, 1e18 * weight, bias


def denormal_values():
    x, weight, bias = random()
    return 1e-24 * x, 1e15 * weight, bias


def one_sign():
    """Every product is positive: nothing cancels, and the scores have a large common offset."""
    x, weight, bias = random()
    return x.abs(), weight.abs() * 3, bias


def common_offset():
    x, weight, bias = random()
    x[:, 0], weight[:, 0] = 100, 100
    return x, weight, bias


def within_resolution():
    """Scores that bfloat16 cannot tell apart, half of them below the threshold."""
    x, weight, _ = random(1.0)
    weight *= 0.01
    x[:, 0], weight[:, 0] = 16, 16
    weight[:, 0] += torch.rand(V) / 16 - 0.06
    weight[:5, 0] += 0.07
    return x, weight, None


def ties_against_the_target(d=D):
    """Entries half way between bfloat16 numbers: all scores of the first half of the classes are
    rounded down, all others up, by as much as can be."""
    x = 1 + HALF_STEP * torch.ones(N, d)  # ties to 1: down
    down = (1 + HALF_STEP) * torch.ones(V, d)
    up = (1 + 3 * HALF_STEP) * torch.ones(V, d)  # ties to 1 + 4 HALF_STEP
    weight = torch.where((torch.arange(V) < 3).unsqueeze(1), down, up - 3 * HALF_STEP)
    weight[3:] += torch.linspace(-0.1, 0.005, V - 3).unsqueeze(1)
    return 2 * x, weight, None


def cancelling_bias():
    """The bias takes away the scores' size, but not the rounding of their bfloat16."""
    x, weight, _ = random(1.0)
    x[:, 0], weight[:, 0] = 100, 10 * torch.randn(V)
    bias = -100 * weight[:, 0] + torch.randn(V)
    return x, weight, bias


LAYERS = [
    random,
    large_norms,
    tiny_values,
    denormal_values,
    one_sign,
    common_offset,
    within_resolution,
    ties_against_the_target,
    cancelling_bias,
]
LAYER = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)


def results(x, weight, bias, y, alpha, mode, monkeypatch):
    """Statistics and gradients; whether screening solved anything is told by ``mode``."""
    monkeypatch.setenv(screening.SWITCH, mode)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    options = {"bias": leaves[2] if bias is not None else None, "label_smoothing": 0.1}
    rows = linear_entmax_loss_rows(leaves[0], leaves[1], y, alpha, **options)
    upstream = torch.linspace(-1, 1, len(y))
    return rows, torch.autograd.grad((rows.loss * upstream).sum(), leaves)


@pytest.fixture
def solved(monkeypatch):
    """Records, for every chunk given to the screen, whether it was solved."""
    chunks, solve = [], Screen.solve

    def spy(self, *arguments):
        result = solve(self, *arguments)
        chunks.append(result is not None)
        return result

    monkeypatch.setattr(Screen, "solve", spy)
    return chunks


@pytest.mark.parametrize("alpha", ALPHAS)
def test_screened_results_equal_float32(monkeypatch, solved, alpha):
    x, weight, bias = random()
    y = torch.randint(V, (N,))
    y[::7] = -100
    screened, gradients = results(x, weight, bias, y, alpha, "", monkeypatch)
    assert solved == [True]
    plain, expected = results(x, weight, bias, y, alpha, "off", monkeypatch)
    assert len(solved) == 1
    assert torch.equal(screened.support_size, plain.support_size)
    assert torch.equal(screened.correct, plain.correct)
    assert_close(screened.loss, plain.loss, atol=2e-6 * plain.loss.max().item(), rtol=2e-6)
    # at alpha = 3 the probabilities are the root of a score's distance to the threshold
    tol = 2e-5 if alpha == 3 else 4e-6
    for ours, theirs in zip(gradients, expected):
        assert_close(ours, theirs, atol=tol * theirs.abs().max().item(), rtol=0)


def float64_scores(x, weight, bias):
    z = x.double() @ weight.double().t()
    return z if bias is None else z + bias.double()


@LAYER
def test_the_margin_bounds_the_error_of_every_score(layer):
    """|z - x'.w'| <= the margin of the products + the rounding of the result."""
    x, weight, _ = layer()
    screen = Screen(x, weight, None, 1.5)
    rounded = (screen.rounded_x @ screen.rounded_weight.t()).double()
    error = (rounded - float64_scores(x, weight, None)).abs()
    allowed = screen.margin.double().unsqueeze(1) + rounded.abs() * 2.0**-8
    assert bool((error <= allowed).all()), (error / allowed).max()


@pytest.mark.parametrize("layer", [random, ties_against_the_target], ids=["random", "ties"])
@pytest.mark.parametrize("d", [1, 5, 31, 33, 700])
def test_the_margin_holds_at_any_width(layer, d):
    x, weight, _ = layer(d=d)
    screen = Screen(x, weight, None, 1.5)
    rounded = (screen.rounded_x @ screen.rounded_weight.t()).double()
    error = (rounded - float64_scores(x, weight, None)).abs()
    assert bool((error <= screen.margin.unsqueeze(1) + rounded.abs() * 2.0**-8).all())


@pytest.mark.parametrize("alpha", ALPHAS)
@LAYER
def test_no_column_of_the_support_is_lost(layer, alpha):
    tensors = layer()
    screen = Screen(*tensors, alpha)
    solved = screen.solve(slice(0, N), torch.zeros(N, dtype=torch.long), V)
    assert solved is not None
    z = float64_scores(*tensors)
    probs = reference.entmax(z[::16], alpha)
    # what float32 scores of this size can tell apart
    x, weight, _ = tensors
    noise = 2.0**-22 * float(x.norm(dim=1).max() * weight.norm(dim=1).max())
    for row, expected in zip(range(0, N, 16), probs):
        kept = solved.columns[row, : solved.n_kept[row]].long()
        found = torch.zeros(V, dtype=torch.float64)
        found[kept] = solved.values[row, : len(kept)].double()
        assert_close(found, expected, atol=2e-6 + 4 * noise ** min(1, 1 / (alpha - 1)), rtol=0)


@pytest.mark.parametrize("alpha", [1.5, 2])
def test_too_dense_a_support_falls_back_and_is_right(monkeypatch, solved, alpha):
    x, weight, bias = 1e-3 * torch.randn(N, D), torch.randn(V, D), None
    y = torch.randint(V, (N,))
    screened, gradients = results(x, weight, bias, y, alpha, "", monkeypatch)
    assert solved == [False]
    plain, expected = results(x, weight, bias, y, alpha, "off", monkeypatch)
    assert all(map(torch.equal, screened, plain))
    assert all(map(torch.equal, gradients, expected))


def test_after_a_dense_chunk_it_no_longer_tries():
    x, weight = 1e-3 * torch.randn(N, D), torch.randn(V, D)
    x[N // 2 :] *= 3e4
    screen = Screen(x, weight, None, 1.5)
    y = torch.zeros(N // 2, dtype=torch.long)
    halves = [slice(0, N // 2), slice(N // 2, N)]
    assert screen.solve(halves[1], y, V // 7) is not None
    assert screen.solve(halves[0], y, V // 7) is None
    assert not screen.pays
    assert screen.solve(halves[1], y, V // 7) is None


@pytest.mark.parametrize("what", [float("nan"), float("inf"), 3e38])
def test_what_cannot_be_bounded_is_left_to_float32(monkeypatch, solved, what):
    x, weight, bias = random()
    x[3, 4] = what
    y = torch.zeros(N, dtype=torch.long)
    screened, _ = results(x, weight, bias, y, 1.5, "", monkeypatch)
    assert solved == [False]
    plain, _ = results(x, weight, bias, y, 1.5, "off", monkeypatch)
    assert_close(screened.loss, plain.loss, equal_nan=True)


def test_small_layers_other_types_and_the_switch_have_no_screen(monkeypatch):
    x, weight, bias = random()
    assert native.screen(x, weight, bias, 1.5) is not None
    assert native.screen(x[:511], weight, bias, 1.5) is None
    assert native.screen(x.double(), weight.double(), bias, 1.5) is None
    monkeypatch.setattr(screening, "_FEWEST_SCORES", N * V + 1)
    assert native.screen(x, weight, bias, 1.5) is None
    monkeypatch.setattr(screening, "_FEWEST_SCORES", N * V)
    assert native.screen(x, weight, bias, 1.5) is not None
    monkeypatch.setattr(screening, "has_bf16", lambda: False)
    assert native.screen(x, weight, bias, 1.5) is None
    monkeypatch.setattr(screening, "has_bf16", lambda: True)
    monkeypatch.setenv(screening.SWITCH, "off")
    assert native.screen(x, weight, bias, 1.5) is None


def test_16_bit_layers_are_screened_too(solved):
    x, weight, _ = (t.bfloat16() for t in random())
    y = torch.randint(V, (N,))
    loss = linear_entmax_loss(x, weight, y)
    assert solved == [True]
    z = F.linear(x.double(), weight.double())
    assert_close(loss.double(), reference.entmax_loss(z, y).mean(), rtol=4e-3, atol=0)
