"""entmax_loss: values, smoothing, the margin, reductions, types, statistics."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fairseq_entmax.functional import entmax_loss, reference
from fairseq_entmax.functional.loss import entmax_loss_rows
from tests.functional.problems import (
    HALF_TYPES,
    LONG,
    close_to_float32,
    loss_and_gradient,
    random_problem,
    slope_from_the_right,
)

ALPHAS = [1, 1 + 1e-5, 1.01, 1.3, 1.5, 2, 4]
FEW_ALPHAS = [1, 1.3, 1.5, 2, 3]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("n_classes", [1, 17, 513, 1001])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_values_equal_the_oracle(alpha, n_classes, label_smoothing, float_type):
    for scale in (0.1, 6):
        z, y = random_problem(3, n_classes, scale, float_type)
        y[0] = z[0].argmax()
        expected = reference.entmax_loss(z, y, alpha, label_smoothing=label_smoothing)
        loss = entmax_loss(z, y, alpha, label_smoothing=label_smoothing, reduction="none")
        assert loss.dtype == float_type
        # the oracle's entropy loses 5 digits at alpha = 1 + 1e-5
        digits = 1e-10 if float_type == torch.float64 else 1e-6
        assert_close(loss.double(), expected, atol=digits, rtol=digits)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
@pytest.mark.parametrize("n_classes", [17, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_shifted_scores_lose_nothing(alpha, n_classes, shift, path):
    z, y = random_problem(3, n_classes, dtype=torch.float32)
    z += shift
    close_to_float32(entmax_loss(z, y, alpha, reduction="none"), reference.entmax_loss(z, y, alpha))


@pytest.mark.parametrize("alpha", [1.5, 2])
@pytest.mark.parametrize("scale", [0, 0.01])
def test_nearly_even_rows_lose_nothing(scale, alpha, path):
    """Where hundreds of probabilities are rounded alike, their errors add up."""
    for n_classes in range(512, 700, 6):
        z = torch.randn(4, n_classes) * scale
        places = torch.randint(n_classes, (4, 5))
        z.scatter_(1, places, torch.empty(4, 5).uniform_(-3, 1))
        z[0] = 0
        y = places[:, 0]
        loss = entmax_loss(z, y, alpha, reduction="none")
        assert_close(loss.double(), reference.entmax_loss(z, y, alpha), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 0), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_any_shape(alpha, shape, float_type):
    z = torch.randn(shape + (5,), dtype=float_type)
    y = torch.randint(5, shape)
    loss = entmax_loss(z, y, alpha, reduction="none")
    assert loss.shape == shape
    assert_close(loss, reference.entmax_loss(z, y, alpha).to(float_type))


def test_memory_layout_does_not_matter(float_type):
    whole = torch.randn(5, 6, dtype=float_type)
    y = torch.tensor([0, 1, 2])
    for z in (whole.t()[::2], whole[:1, :5].expand(3, 5)):
        loss = entmax_loss(z, y, reduction="none")
        assert_close(loss, reference.entmax_loss(z, y).to(float_type))


@pytest.mark.parametrize("n_classes", [7, LONG])
def test_one_alpha_per_row_equals_a_loop(n_classes, float_type):
    alphas = [1.0, 1.0001, 1.3, 1.5, 2.0, 2.5, 4.0]
    z, y = random_problem(7, n_classes, dtype=float_type)
    alpha = torch.tensor(alphas, dtype=torch.float64).unsqueeze(1)
    loss = entmax_loss(z, y, alpha, label_smoothing=0.1, reduction="none")
    for row, a in enumerate(alphas):
        expected = reference.entmax_loss(z[row], y[row], a, label_smoothing=0.1)
        # an alpha tensor's 1 has the entropy of 1 + 1e-8
        if float_type == torch.float64:
            assert_close(loss[row], expected, atol=5e-7 if a == 1 else 1e-9, rtol=1e-9)
        else:
            close_to_float32(loss[row], expected)


@pytest.mark.parametrize("alpha", [1.3, 1.5, "tensor"])
def test_many_rows_are_solved_like_few(alpha, path):
    z, y = random_problem(250, 10007, dtype=torch.float32)  # more than one chunk of rows
    alphas = [alpha] * 250 if alpha != "tensor" else torch.linspace(1.5, 3, 250).tolist()
    alpha = alpha if alpha != "tensor" else torch.tensor(alphas).unsqueeze(1)
    loss, gradient = loss_and_gradient(z, y, alpha, reduction="none")
    rows = entmax_loss_rows(z, y, alpha)
    for row in (0, 208, 209, 210, 249):
        probs = reference.entmax(z[row], alphas[row])
        close_to_float32(loss[row], reference.entmax_loss(z[row], y[row], alphas[row]))
        close_to_float32(gradient[row], probs - F.one_hot(y[row], 10007))
        close_to_float32(rows.target_probs[row], probs[y[row]])


def test_alpha_broadcasts():
    z, y = random_problem(6, 5)
    z, y = z.view(2, 3, 5), y.view(2, 3)
    for shape in ((), (1,), (3, 1), (2, 1, 1)):
        alpha = 1 + torch.rand(shape, dtype=torch.float64)
        loss = entmax_loss(z, y, alpha, reduction="none")
        every_alpha = alpha.expand(2, 3, 1)
        for i in range(2):
            for j in range(3):
                expected = reference.entmax_loss(z[i, j], y[i, j], every_alpha[i, j].item())
                assert_close(loss[i, j], expected)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_alpha_1_is_cross_entropy(reduction, label_smoothing):
    z, y = random_problem(9, 17)
    y[2:4] = -100
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    ours = loss_and_gradient(z, y, 1, **options)
    z.requires_grad_()
    theirs = F.cross_entropy(z, y, **options)
    theirs.sum().backward()
    assert_close(ours[0], theirs.detach())
    assert_close(ours[1], z.grad)


@pytest.mark.parametrize("n_classes", [17, LONG])
@pytest.mark.parametrize("above", [2e-8, 1e-7, 1e-6])
def test_no_digits_are_lost_near_alpha_1(above, n_classes):
    z, y = random_problem(50, n_classes)
    # the oracle divides rounding errors by alpha - 1: reach there from alpha = 1
    slope = slope_from_the_right(lambda a: reference.entmax_loss(z, y, a), 1.0)
    loss = entmax_loss(z, y, 1 + above, reduction="none")
    expected = reference.entmax_loss(z, y, 1) + above * slope
    assert_close(loss, expected, atol=100 * above**2 + 1e-11, rtol=0)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("ignore_index", [-100, 3])
@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
def test_equals_entmax_1_3(alpha, ignore_index, reduction):
    peer = pytest.importorskip("entmax")
    z, y = random_problem(20, 17)
    y[5] = abs(ignore_index) % 17
    options = {
        "ignore_index": ignore_index,
        "reduction": "elementwise_mean" if reduction == "mean" else reduction,
    }
    if alpha == 1.3:
        theirs = peer.EntmaxBisectLoss(alpha, n_iter=100, **options)
    else:
        theirs = {1.5: peer.Entmax15Loss, 2.0: peer.SparsemaxLoss}[alpha](**options)
    loss = entmax_loss(z, y, alpha, ignore_index=ignore_index, reduction=reduction)
    assert_close(loss, theirs(z, y), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_label_smoothing_by_its_formula(alpha, float_type):
    z, y = random_problem(3, 5, dtype=float_type)
    y[:] = torch.tensor([0, 4, 2])
    plain = entmax_loss(z, y, alpha, ignore_index=1, reduction="none")
    smooth = entmax_loss(z, y, alpha, ignore_index=1, label_smoothing=0.3, reduction="none")
    for row in range(3):
        scores = z[row].tolist()
        mean = (scores[0] + scores[2] + scores[3] + scores[4]) / 4
        expected = plain[row].item() + 0.3 * (scores[y[row]] - mean)
        assert smooth[row].item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


# --- the margin --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [3, 17, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_loss_is_never_negative(alpha, n_classes, float_type):
    for scale in (0.1, 1, 10):
        z, _ = random_problem(300, n_classes, scale, float_type)
        assert (entmax_loss(z, z.argmax(1), alpha, reduction="none") >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n_classes", [3, LONG])
@pytest.mark.parametrize("alpha", [1.3, 1.5, 2, 3])
def test_loss_is_zero_from_the_margin_on(alpha, n_classes, dtype, path):
    margin = 1 / (alpha - 1)
    z = torch.zeros(2, n_classes, dtype=torch.float64)
    y = torch.tensor([1, 1])
    z[:, 1] = torch.tensor([1.01, 0.9]) * margin
    loss, gradient = loss_and_gradient(z.to(dtype), y, alpha, reduction="none")
    assert loss[0] == 0
    assert not gradient[0].any()
    assert loss[1] > 0
    assert gradient[1].any()


# --- dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("n_classes", [17, 70_000])
@pytest.mark.parametrize("alpha", [1, 1.5])
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_16_bit_scores(dtype, alpha, n_classes, label_smoothing, path):
    # a mean far from 0 shows a rounded 1 / V
    z, y = random_problem(2, n_classes, dtype=torch.float32)
    z = (z + 5).to(dtype)
    options = {"label_smoothing": label_smoothing}
    loss = entmax_loss_rows(z, y, alpha, **options).loss
    assert loss.dtype == torch.float32
    assert_close(loss.double(), reference.entmax_loss(z, y, alpha, **options), atol=4e-6, rtol=4e-6)
    for reduction in ("none", "sum", "mean"):
        rounded = entmax_loss(z, y, alpha, reduction=reduction, **options)
        assert rounded.dtype == dtype
    assert torch.equal(entmax_loss(z, y, alpha, reduction="none", **options), loss.to(dtype))


def test_a_sum_of_16_bit_losses_is_taken_in_float32(path):
    z = torch.zeros(5000, 4, dtype=torch.bfloat16)
    y = torch.zeros(5000, dtype=torch.long)
    row = reference.entmax_loss(z[:1], y[:1]).item()
    assert entmax_loss(z, y, reduction="sum").item() == pytest.approx(5000 * row, rel=2**-8)
    assert entmax_loss(z, y).item() == pytest.approx(row, rel=2**-8)


# --- statistics --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [1, 9, 1001])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_statistics_equal_brute_force(alpha, n_classes, float_type):
    exact = float_type == torch.float64
    for scale in (0.1, 2, 6):
        z, y = random_problem(5, n_classes, scale, float_type)
        y[0] = z[0].argmax()
        y[1] = z[1].argmin()
        rows = entmax_loss_rows(z, y, alpha)
        probs = reference.entmax(z, alpha)
        digits = 1e-10 if exact else 1e-6
        expected = reference.entmax_loss(z, y, alpha)
        assert_close(rows.loss.double(), expected, atol=digits, rtol=digits)
        assert_close(rows.target_probs.double(), probs[range(5), y], atol=digits, rtol=digits)
        assert rows.correct.tolist() == (z.argmax(1) == y).tolist()
        for size, row in zip(rows.support_size.tolist(), probs.tolist()):
            # float32 may miss an entry at the support's very edge
            assert abs(size - sum(p > 0 for p in row)) <= (0 if exact else 1)


@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_statistics_of_rows_that_do_not_count(alpha, float_type):
    z, _ = random_problem(4, 5, dtype=float_type)
    z[1] = -math.inf
    z[2] = math.nan
    y = torch.tensor([2, 0, 2, 2])
    rows = entmax_loss_rows(z, y, alpha, ignore_index=2)
    for column in rows:
        assert not column.any()


@pytest.mark.parametrize("shape", [(), (2, 3), (0,), (2, 0)], ids=str)
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_statistics_have_their_shape_and_type(alpha, shape, path):
    rows = entmax_loss_rows(torch.randn(shape + (4,)).half(), torch.randint(4, shape), alpha)
    assert [column.shape for column in rows] == [shape] * 4
    types = [torch.float32, torch.int64, torch.float32, torch.bool]
    assert [column.dtype for column in rows] == types


@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_no_classes(alpha, float_type):
    z = torch.zeros(3, 0, dtype=float_type)
    loss, gradient = loss_and_gradient(z, torch.full((3,), -100), alpha)
    assert loss == 0
    assert gradient.shape == (3, 0)


@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_a_tied_target_counts_as_correct(alpha, float_type):
    z = torch.tensor([[1.0, 1.0, 0.0]] * 3, dtype=float_type)
    assert entmax_loss_rows(z, torch.arange(3), alpha).correct.tolist() == [True, True, False]


@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_statistics_receive_no_gradient(alpha, float_type):
    z, y = random_problem(3, 5, dtype=float_type)
    rows = entmax_loss_rows(z.requires_grad_(), y, alpha)
    assert [column.requires_grad for column in rows] == [True, False, False, False]
