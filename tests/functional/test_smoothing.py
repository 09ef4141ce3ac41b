"""Label smoothing towards a given distribution: the oracle's values, torch's gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fairseq_entmax.functional import entmax_loss, linear_entmax_loss, reference
from tests.functional.conftest import compiled_run
from tests.functional.problems import HALF_TYPES, random_problem, slope

EPS = 0.2
PAD = 1


def prior(n_classes):
    """Counts, some of them 0, not normalised."""
    counts = torch.randint(0, 50, (n_classes,)).double()
    counts[0] += 1
    return counts


@pytest.mark.parametrize("ignore_index", [-100, PAD], ids=["no pad", "pad"])
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2])
def test_loss_equals_the_oracle(alpha, ignore_index, float_type):
    z, y = random_problem(6, 17, dtype=float_type)
    y[:3] = torch.tensor([0, PAD, PAD])
    options = {"label_smoothing": EPS, "smoothing_probs": prior(17), "ignore_index": ignore_index}
    loss = entmax_loss(z, y, alpha, reduction="none", **options)
    assert_close(loss.double(), reference.entmax_loss(z, y, alpha, **options), atol=2e-6, rtol=1e-6)


def test_a_uniform_prior_is_uniform_smoothing(float_type):
    z, y = random_problem(5, 17, dtype=float_type)
    y[0] = PAD
    options = {"label_smoothing": EPS, "ignore_index": PAD}
    given = entmax_loss(z, y, smoothing_probs=torch.full((17,), 3.0), **options)
    assert_close(given, entmax_loss(z, y, **options))


def test_a_prior_at_the_target_smooths_nothing(float_type):
    z, _ = random_problem(4, 9, dtype=float_type)
    y = torch.full((4,), 6)
    only = F.one_hot(torch.tensor(6), 9).double()
    assert_close(entmax_loss(z, y, label_smoothing=EPS, smoothing_probs=only), entmax_loss(z, y))


def test_prior_without_label_smoothing_changes_nothing(path):
    z, y = random_problem(4, 9, dtype=torch.float32)
    assert torch.equal(entmax_loss(z, y, smoothing_probs=prior(9)), entmax_loss(z, y))


@pytest.mark.parametrize("alpha", [1, 1.5, 2])
def test_gradient_is_probs_minus_the_smoothed_target(alpha, float_type):
    z, y = random_problem(4, 9, dtype=float_type)
    z.requires_grad_()
    counts = prior(9)
    entmax_loss(
        z, y, alpha, label_smoothing=EPS, smoothing_probs=counts, reduction="sum"
    ).backward()
    q = (1 - EPS) * F.one_hot(y, 9) + EPS * counts / counts.sum()
    expected = reference.entmax(z.detach(), alpha) - q
    assert_close(z.grad.double(), expected, atol=2e-6, rtol=0)


def test_gradient_for_an_alpha_tensor():
    z, y = random_problem(3, 9)
    options = {"label_smoothing": EPS, "smoothing_probs": prior(9), "reduction": "sum"}
    alpha = torch.tensor(1.4, dtype=torch.float64, requires_grad=True)
    entmax_loss(z, y, alpha, **options).backward()
    by_slope = slope(lambda a: entmax_loss(z, y, a.item(), **options), alpha.detach())
    assert_close(alpha.grad, by_slope, atol=1e-6, rtol=1e-6)


def test_masked_classes_and_rows(float_type):
    z, y = random_problem(4, 9, dtype=float_type)
    y[:] = torch.tensor([3, 3, 3, PAD])
    z[1, 5:8], z[2] = -math.inf, -math.inf
    z.requires_grad_()
    counts = prior(9)
    options = {"label_smoothing": EPS, "ignore_index": PAD, "reduction": "none"}
    loss = entmax_loss(z, y, smoothing_probs=counts, **options)
    loss.sum().backward()
    seen = torch.tensor([0, 1, 2, 3, 4, 8])
    without = entmax_loss(z.detach()[1, seen], y[1], smoothing_probs=counts[seen], **options)
    assert_close(loss.detach()[1], without)
    assert loss[2] == loss[3] == 0
    assert not z.grad[2:].any() and not z.grad[1, 5:8].any()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_16_bit_scores(dtype, path):
    z, y = random_problem(3, 5000, dtype=torch.float32)
    z = (z + 5).to(dtype)
    options = {"label_smoothing": EPS, "smoothing_probs": prior(5000)}
    loss = entmax_loss(z, y, reduction="none", **options)
    assert loss.dtype == dtype
    assert_close(loss.double(), reference.entmax_loss(z, y, **options), atol=0, rtol=2**-7)


@pytest.mark.parametrize("uniform", [True, False], ids=["uniform", "prior"])
@pytest.mark.parametrize("alpha", [1, 1.5, 1.3])
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_16_bit_gradients_are_rounded_once(dtype, alpha, uniform, path):
    z, y = random_problem(20, 30, scale=1.0, dtype=torch.float32)
    z = z.to(dtype).requires_grad_()
    counts = torch.ones(30) if uniform else 1 + prior(30)
    options = {"label_smoothing": EPS, "smoothing_probs": None if uniform else counts}
    entmax_loss(z, y, alpha, reduction="sum", **options).backward()
    q = (1 - EPS) * F.one_hot(y, 30) + EPS * counts / counts.sum()
    expected = reference.entmax(z.detach(), alpha) - q
    half_step = torch.finfo(dtype).eps / 2
    limit = 1.001 * half_step * expected.abs() + 3e-7
    assert bool(((z.grad.double() - expected).abs() <= limit).all())


# ---- the fused output layer


def layer(dtype=torch.float64, scale=12.0):
    x, weight = scale * torch.randn(23, 7, dtype=dtype), torch.randn(60, 7, dtype=dtype) / 3
    bias, y = torch.randn(60, dtype=dtype), torch.randint(60, (23,))
    y[::4] = PAD
    return [t.requires_grad_() for t in (x, weight, bias)], y


def gradients(loss, tensors):
    return [loss.detach(), *torch.autograd.grad(loss, [t for t in tensors if t.requires_grad])]


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("alpha", [1, 1.5, 2])
@pytest.mark.parametrize("scale", [12.0, 1e-3], ids=["sparse", "dense"])
def test_fused_equals_unfused(scale, alpha, reduction, with_bias, float_type):
    (x, weight, bias), y = layer(float_type, scale)
    bias = bias if with_bias else None
    options = {
        "label_smoothing": EPS,
        "smoothing_probs": prior(60),
        "ignore_index": PAD,
        "reduction": reduction,
    }
    fused = linear_entmax_loss(x, weight, y, alpha, bias=bias, **options)
    exact = [None if t is None else t.detach().double().requires_grad_() for t in (x, weight, bias)]
    plain = entmax_loss(F.linear(*exact), y, alpha, **options)
    upstream = torch.randn_like(plain) if reduction == "none" else torch.ones_like(plain)
    inputs = [t for t in (x, weight, bias) if t is not None]
    ours = gradients((fused * upstream.to(fused)).sum(), inputs)
    theirs = gradients((plain * upstream).sum(), [t for t in exact if t is not None])
    for mine, wanted in zip(ours, theirs):
        tolerance = 1e-10 if float_type == torch.float64 else 2e-6
        assert (mine.double() - wanted).abs().max() <= tolerance * wanted.abs().max()


def test_fused_with_a_masked_class(path):
    (x, weight, bias), y = layer(torch.float32)
    y[:] = y.clamp(max=40)
    bias = bias.detach()
    bias[50] = -math.inf
    options = {"label_smoothing": EPS, "smoothing_probs": prior(60), "ignore_index": PAD}
    fused = linear_entmax_loss(x, weight, y, bias=bias, **options)
    plain = entmax_loss(F.linear(x, weight, bias), y, **options)
    for mine, wanted in zip(gradients(fused, [x, weight]), gradients(plain, [x, weight])):
        assert_close(mine, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_fused_16_bit(dtype, path):
    (x, weight, _), y = layer(dtype)
    options = {"label_smoothing": EPS, "smoothing_probs": prior(60), "ignore_index": PAD}
    loss = linear_entmax_loss(x, weight, y, reduction="none", **options)
    expected = reference.entmax_loss(F.linear(x.double(), weight.double()), y, **options)
    assert loss.dtype == dtype
    assert_close(loss.double(), expected, atol=1e-4, rtol=2**-7)


def test_autocast_rounds_nothing(path):
    (x, weight, bias), y = layer(torch.float32)
    options = {"label_smoothing": EPS, "smoothing_probs": prior(60)}
    plain = gradients(linear_entmax_loss(x, weight, y, bias=bias, **options), [x, weight, bias])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_entmax_loss(x, weight, y, bias=bias, **options)
    for rounded, wanted in zip(gradients(loss, [x, weight, bias]), plain):
        assert torch.equal(rounded, wanted)


# ---- what is refused


@pytest.mark.parametrize(
    ("probs", "received"),
    [
        (torch.ones(8), r"shape \(9,\), got torch.float32 of shape \(8,\)"),
        (torch.ones(1, 9), r"shape \(1, 9\)"),
        (torch.ones(9).long(), "torch.int64"),
        (torch.ones(9).neg(), r"got values in \[-1.0, -1.0\]"),
        (torch.full((9,), math.nan), r"got values in \[nan, nan\]"),
        (torch.full((9,), math.inf), r"got values in \[inf, inf\]"),
    ],
    ids=["short", "two dimensions", "integer", "negative", "nan", "inf"],
)
def test_a_wrong_prior_is_refused(probs, received):
    z, y = random_problem(2, 9, dtype=torch.float32)
    with pytest.raises(ValueError, match=received):
        entmax_loss(z, y, label_smoothing=EPS, smoothing_probs=probs)
    with pytest.raises(ValueError, match=received):
        linear_entmax_loss(z, torch.ones(9, 9), y, label_smoothing=EPS, smoothing_probs=probs)


def test_torch_and_compiled_see_the_same_prior():
    if not compiled_run():
        pytest.skip("the compiled kernels are not there or switched off")
    (x, weight, bias), y = layer(torch.float32)
    options = {"label_smoothing": EPS, "smoothing_probs": prior(60)}
    single = linear_entmax_loss(x, weight, y, bias=bias, **options)
    double = linear_entmax_loss(x.double(), weight.double(), y, bias=bias.double(), **options)
    assert_close(single.double(), double, atol=1e-6, rtol=1e-6)
