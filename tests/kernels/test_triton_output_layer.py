"""The output layer's Triton kernels, in Triton's interpreter, against float64 scores."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fairseq_entmax.functional import (
    entmax_loss,
    linear_entmax_loss,
    next_tokens,
    output_layer,
    reference,
)
from fairseq_entmax.functional.loss import entmax_loss_rows
from fairseq_entmax.functional.output_layer import linear_entmax_loss_rows
from fairseq_entmax.kernels import triton

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="compiled, not interpreted"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy about NaN and infinity
]

N, V, D = 6, 150, 20  # three tiles of classes, the last not full
IGNORED = 4


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """Tensors on the CPU go to the kernels; rows keep up to 16 of 32 candidates."""
    layer = triton.output_layer
    for user in (output_layer, next_tokens):
        monkeypatch.setattr(user, "choose_device_layer", lambda x, weight: triton)
    monkeypatch.setattr(layer, "_CAPACITY", 32)
    monkeypatch.setattr(layer, "KEPT", 16)
    monkeypatch.setattr(layer, "_SOLVED_AT_ONCE", 8)
    monkeypatch.setattr(layer, "_MOST_SPLITS", 2)
    return layer


def layer(dtype, dense_rows=()):
    """Features, weight, bias and targets: likely words in even rows, any in odd ones."""
    torch.manual_seed(0)
    x, weight, bias = 4 * torch.randn(N, D), torch.randn(V, D) / D**0.5, torch.randn(V) / 4
    target = torch.randint(V, (N,))
    target[::2] = (x @ weight.t() + bias).argmax(1)[::2]
    x[list(dense_rows)] *= 1e-3
    bias = bias * 1e-3 if dense_rows else bias
    target[IGNORED] = -100
    return tuple(t.to(dtype).requires_grad_() for t in (x, weight, bias)) + (target,)


def gradients(loss, upstream, inputs):
    return torch.autograd.grad((loss * upstream.to(loss.dtype)).sum(), inputs)


@pytest.mark.parametrize(
    "alpha, dtype, dense_rows, smoothing",
    [
        (1.5, torch.float32, (), 0.0),
        (2.0, torch.float32, (1, 4), 0.1),
        (1.3, torch.float32, (0,), 0.0),
        (1.5, torch.float16, (3,), 0.1),
        (2.0, torch.float16, (), 0.0),
    ],
)
def test_loss_and_gradients_are_those_of_float64_scores(alpha, dtype, dense_rows, smoothing):
    *inputs, target = layer(dtype, dense_rows)
    x, weight, bias = inputs
    upstream = torch.rand(N)
    options = {"label_smoothing": smoothing, "reduction": "none"}
    rows = linear_entmax_loss_rows(x, weight, target, alpha, bias=bias, label_smoothing=smoothing)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    scores = F.linear(*exact)
    loss = entmax_loss(scores, target, alpha, **options)
    assert rows.loss.dtype == torch.float32
    assert_close(rows.loss.double(), loss, atol=4e-6, rtol=2e-6)
    theirs = gradients(loss, upstream, exact)
    rounding = {torch.float32: 4e-6, torch.float16: 1e-3}[dtype]
    for mine, wanted in zip(gradients(rows.loss, upstream, inputs), theirs):
        assert mine.dtype == dtype
        assert_close(mine.double(), wanted, atol=rounding, rtol=rounding)
    statistics = entmax_loss_rows(scores, target, alpha)[1:]
    for mine, wanted in zip(rows[1:], statistics):
        assert_close(mine.to(wanted.dtype), wanted, atol=1e-5, rtol=1e-5)


def test_masked_classes_dead_and_broken_rows(kernels):
    x, weight, bias, target = layer(torch.float32)
    weight, bias = weight.detach(), bias.detach()
    target[1] = int((x @ weight.t() + bias).argmax(1)[1])
    bias[: V // 2] = -math.inf
    target[target < V // 2] += V // 2
    target[IGNORED] = -100
    x = x.detach()
    x[2, 0], x[3, 0] = math.nan, math.inf
    exact = entmax_loss_rows(F.linear(x, weight, bias).double(), target)
    rows = linear_entmax_loss_rows(x, weight, target, bias=bias)
    assert rows.loss[2:4].isnan().all()
    assert_close(rows.loss.double(), exact.loss, atol=1e-5, rtol=1e-5, equal_nan=True)
    assert rows.support_size[[0, 1, 5]].equal(exact.support_size[[0, 1, 5]])
    dead = linear_entmax_loss_rows(x[:2], weight, target[:2], bias=torch.full((V,), -math.inf))
    assert dead.loss.tolist() == [0, 0] and dead.support_size.tolist() == [0, 0]


def test_sums_do_not_depend_on_the_order_of_candidates(kernels):
    from fairseq_entmax.kernels.triton.output_layer import _solve, sweep

    x, weight, bias, target = (t.detach() for t in layer(torch.float32))
    found = sweep(x, weight, bias, target.clamp(min=-1), 1.5)
    solved = _solve(found, target.clamp(min=-1), 1.5)
    for row, n in enumerate(found.n_found.tolist()):
        found.pairs[row, :n] = found.pairs[row, :n].flip(0)
    for once, again in zip(solved, _solve(found, target.clamp(min=-1), 1.5)):
        assert once.dim() == 2 or torch.equal(once, again)


@pytest.mark.parametrize("alpha, biased", [(1.5, True), (2.0, False), (1.2, True)])
def test_next_tokens(alpha, biased):
    x, weight, bias, _ = (t.detach() for t in layer(torch.float32, dense_rows=(2,)))
    bias = bias if biased else None
    x[3, 5] = math.nan
    found = next_tokens.next_token_layer(weight, bias, alpha, 0.8).next_tokens(x, 4, 10)
    whole = [0, 1, 2, 4, 5]
    expected = reference.entmax(F.linear(x, weight, bias).double() / 0.8, alpha)[whole]
    listed, tokens = found.log_probs[whole].exp().double(), found.tokens[whole]
    assert tokens[:, :4].tolist() == [[0, 1, 2, 3]] * 5
    assert_close(listed, expected.gather(1, tokens) * (listed > 0), atol=2e-6, rtol=1e-5)
    assert_close(listed[:, 4:], expected[:, 4:].topk(10, 1).values, atol=2e-6, rtol=1e-5)
    assert found.support_size[whole].equal((expected > 0).sum(1))
    assert not (found.log_probs[3] > -math.inf).any()


def test_one_derivative():
    x, weight, _, target = layer(torch.float32)
    loss = linear_entmax_loss(x, weight, target)
    with pytest.raises(RuntimeError, match="create_graph=True"):
        torch.autograd.grad(loss, x, create_graph=True)


def test_only_gpus_that_compile_are_taken():
    x = torch.zeros(2, 2)
    assert not triton.takes_layer(x, x)
    assert not triton.takes_layer(x.to("meta"), x.to("meta"))
