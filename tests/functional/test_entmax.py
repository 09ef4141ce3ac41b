"""entmax, sparsemax and entmax15: values, the ends of alpha, shapes, types."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, entmax15, reference, sparsemax
from tests.functional.problems import HALF_TYPES, LONG, row_errors

SIZES = [1, 2, 3, 17, 64, 511, 512, 513, 1000, 10007]
ALPHAS = [1.01, 1.1, 1.3, 1.5, 1.75, 2.0, 2.5, 4.0]


def rows_by_kind(n_classes, dtype=torch.float32):
    """Rows of every kind of scores that has its own way to go wrong."""
    n_rows = 2 if n_classes < 10_000 else 1  # the oracle is slow
    z = torch.randn(n_rows, n_classes, dtype=dtype)
    last, first = z.clone(), z.clone()
    last[:, -1] += 25  # beyond the last full group of candidates
    first[:, 0] += 4
    masked = z.masked_fill(torch.rand_like(z) < 0.5, -math.inf)
    masked[:, n_classes // 2] = 0.1
    return {
        "random": z,
        "peaked": 10 * z,
        "peak at the end": last,
        "peak at the start": first,
        "tied": (3 * z).round() / 4,
        "near-uniform": 1e-3 * z,
        "uniform": torch.full_like(z, -0.7),
        "falling": torch.linspace(0, -20, n_classes, dtype=dtype).expand(n_rows, -1),
        "shifted up": z + 1e4,
        "shifted down": z - 1e4,
        "masked": masked,
        "huge": 1e30 * z,
    }


def oracle(z, alpha):
    """reference.entmax without minutes of bisection where few of many scores matter."""
    if z.shape[-1] < 50_000:
        return reference.entmax(z, alpha)
    if alpha in (1.5, 2.0):
        return reference.entmax15(z) if alpha == 1.5 else reference.sparsemax(z)
    top, columns = z.double().topk(4096)
    probs = reference.entmax(top, alpha)
    # scores below one that has no mass have none, and change nothing
    if probs[..., -1].any():
        return reference.entmax(z, alpha)
    return torch.zeros_like(z, dtype=torch.float64).scatter(-1, columns, probs)


def tolerance(alpha):
    return 5e-7 if alpha in (1.5, 2.0) else 2e-6


def check_against_oracle(kinds, alpha, limit, paths):
    expected = oracle(torch.cat(list(kinds.values())), alpha).chunk(len(kinds))
    wrong = {}
    for path in paths:
        # one call per kind: rows that are solved together are solved alike
        for (kind, z), p in zip(kinds.items(), expected):
            error = row_errors(entmax(z, alpha), p).max().item()
            if not error <= limit:  # a NaN is wrong too
                wrong[kind, path] = error
    assert not wrong


@pytest.mark.parametrize("n_classes", SIZES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_float32_equals_the_oracle(alpha, n_classes, each_path):
    check_against_oracle(rows_by_kind(n_classes), alpha, tolerance(alpha), each_path())


@pytest.mark.parametrize("n_classes", [1, 17, 1000])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_float64_equals_the_oracle(alpha, n_classes):
    check_against_oracle(rows_by_kind(n_classes, torch.float64), alpha, 1e-10, ["torch"])


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("kind", ["random", "peaked", "near-uniform", "peak at the end"])
def test_100_000_classes(kind, alpha, each_path):
    z = rows_by_kind(100_000)[kind]
    expected = oracle(z, alpha)
    for _ in each_path():
        assert row_errors(entmax(z, alpha), expected).max() <= tolerance(alpha)


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0, 4.0])
def test_a_million_classes(alpha, each_path):
    z = torch.randn(1, 1_000_000)
    cases = [(scores, oracle(scores, alpha)) for scores in (z, 5 * z)]
    cases.append((torch.full_like(z, 3.3), torch.full_like(z, 1e-6, dtype=torch.float64)))
    for _ in each_path():
        for scores, expected in cases:
            assert row_errors(entmax(scores, alpha), expected).max() <= tolerance(alpha)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_a_million_near_uniform_classes(alpha, path):
    # tens of thousands of entries share the mass: float32 sums must not drift
    z = 1e-3 * torch.randn(1, 1_000_000)
    assert row_errors(entmax(z, alpha), oracle(z, alpha)).max() <= tolerance(alpha)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 1.3, 3.0])
def test_many_rows_are_solved_like_few(alpha, path):
    z = 3 * torch.randn(300, 10007)  # more than one chunk of rows
    probs = entmax(z, alpha)
    for row in (0, 150, 208, 209, 210, 299):
        assert row_errors(probs[row], oracle(z[row], alpha)) <= tolerance(alpha)
    assert_close(probs.sum(-1), torch.ones(300), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_named_mappings(name):
    z = torch.randn(3, 5, 4)
    mapping, alpha = {"sparsemax": (sparsemax, 2), "entmax15": (entmax15, 1.5)}[name]
    assert_close(mapping(z).double(), reference.entmax(z, alpha), atol=5e-7, rtol=0)
    expected = reference.entmax(z.movedim(1, -1), alpha).movedim(-1, 1)
    assert_close(mapping(z, 1).double(), expected, atol=5e-7, rtol=0)


# --- the ends of alpha -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64] + HALF_TYPES, ids=str)
@pytest.mark.parametrize("alpha", [1, 1.0], ids=["int", "float"])
def test_alpha_1_is_torch_softmax_bit_for_bit(alpha, dtype):
    for n_classes in (1, 17, LONG):
        z = 5 * torch.randn(4, n_classes, 3).to(dtype)
        assert torch.equal(entmax(z, alpha, 1), torch.softmax(z, 1))


@pytest.mark.parametrize("n_classes", [17, 10007])
@pytest.mark.parametrize("above", [1e-9, 1e-8, 2e-8, 1e-7, 9e-7, 1.1e-6, 1e-5, 1e-3])
def test_alpha_tends_to_softmax_without_a_step(above, n_classes, path):
    z = 3 * torch.randn(3, n_classes)
    probs = entmax(z, 1 + above)
    assert row_errors(probs, reference.entmax(z, 1 + above)).max() <= 2e-6
    # d log p / d alpha is at most log(p)^2 / 2, below 50 where the mass is
    limit = 2e-6 + 50 * above
    assert row_errors(probs, torch.softmax(z.double(), -1)).max() <= limit


@pytest.mark.parametrize("n_classes", [2, 17, LONG])
@pytest.mark.parametrize("alpha", [50, 200, 1e3, 1e6])
def test_large_alpha_tends_to_argmax(alpha, n_classes, path):
    z = torch.randn(3, n_classes)
    z[:, 1] = z.amax(1) + 0.1
    one_hot = torch.zeros_like(z)
    one_hot[:, 1] = 1
    assert torch.equal(entmax(z, alpha), one_hot)


@pytest.mark.parametrize("n_classes", [3, LONG])
@pytest.mark.parametrize("alpha", [50, 200, 1e3, 1e6])
def test_large_alpha_shares_among_tied_maxima(alpha, n_classes, path):
    z = torch.randn(n_classes)
    z[0] = z[-1] = z.max() + 0.1
    probs = entmax(z, alpha)
    assert_close(probs[[0, -1]], torch.tensor([0.5, 0.5]))
    assert not probs[1:-1].any()


@pytest.mark.parametrize("n_classes", [17, 1000])
@pytest.mark.parametrize("alpha", [4.0, 8.0])
def test_differences_as_small_as_the_threshold(alpha, n_classes, path):
    tau = n_classes ** (1 - alpha)  # of a uniform row: down to 1e-21
    z = torch.randn(3, n_classes) * tau
    assert row_errors(entmax(z, alpha), reference.entmax(z, alpha)).max() <= 2e-6


def test_alpha_may_be_an_int():
    z = torch.randn(3, 5)
    assert torch.equal(entmax(z, 2), sparsemax(z))
    assert_close(entmax(z, 3).double(), reference.entmax(z, 3), atol=2e-6, rtol=0)


# --- shapes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [-4, -3, -2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2])
def test_any_dim(alpha, dim, path):
    z = torch.randn(2, 3, 4, 5)
    probs = entmax(z, alpha, dim)
    expected = reference.entmax(z.movedim(dim, -1), alpha).movedim(-1, dim)
    assert probs.shape == z.shape
    assert_close(probs.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2])
def test_one_dimension(alpha, path):
    z = torch.randn(6)
    assert_close(entmax(z, alpha).double(), reference.entmax(z, alpha), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (2, 0, 5), (0,)], ids=str)
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2])
def test_nothing_to_do(alpha, shape):
    z = torch.zeros(shape, requires_grad=True)
    probs = entmax(z, alpha)
    probs.sum().backward()
    assert probs.shape == shape
    assert z.grad.shape == shape


@pytest.mark.parametrize("n_classes", [17, LONG])
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2, 3])
def test_memory_layout_does_not_matter(alpha, n_classes, path):
    whole = 3 * torch.randn(n_classes, 8)
    layouts = {
        "transposed": whole.t(),
        "strided": whole[:, ::2].t(),
        "expanded": whole[:, :1].t().expand(4, n_classes),
        "one score": whole[:1, :4].t().expand(4, n_classes),
    }
    for layout, z in layouts.items():
        before = z.clone()
        probs = entmax(z, alpha)
        assert_close(probs, entmax(before, alpha), msg=lambda text, layout=layout: layout + text)
        assert torch.equal(z, before), "the scores were overwritten"


# --- 16-bit types ------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [3, 64, 1000])
@pytest.mark.parametrize("alpha", [1.01, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_16_bit_errs_by_its_own_rounding_only(dtype, alpha, n_classes, each_path):
    limits = torch.finfo(dtype)
    for kind, z in rows_by_kind(n_classes).items():
        if kind == "huge" or (kind.startswith("shifted") and dtype is torch.float16):
            z = z.clamp(-6e4, 6e4)
        z = z.to(dtype)
        expected = reference.entmax(z, alpha)
        rounding = limits.eps / 2 * expected + limits.tiny * limits.eps / 2
        allowed = rounding + tolerance(alpha) * expected.amax(-1, keepdim=True)
        for path in each_path():
            probs = entmax(z, alpha)
            assert probs.dtype == dtype
            assert ((probs.double() - expected).abs() <= allowed).all(), (kind, path)


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_16_bit_peaked_rows_sum_to_one(dtype, alpha, path):
    z = (30 * torch.randn(4, 10007)).to(dtype)
    sums = entmax(z, alpha).double().sum(-1)
    # every entry is rounded by at most eps / 2 of itself
    assert ((sums - 1).abs() <= torch.finfo(dtype).eps).all()
