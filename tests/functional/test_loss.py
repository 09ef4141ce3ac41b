"""entmax_loss: values, smoothing, ignored rows, masks, reductions, types, statistics."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fairseq_entmax.functional import entmax_loss, reference
from fairseq_entmax.functional.loss import entmax_loss_rows

ALPHAS = [1, 1 + 1e-5, 1.01, 1.3, 1.5, 1.75, 2, 2.5, 4]
FEW_ALPHAS = [1, 1.3, 1.5, 2, 3]
LONG = 600  # from 512 entries on, only candidates for the support are solved


def random_problem(n_rows, n_classes, scale=3.0, dtype=torch.float64):
    z = scale * torch.randn(n_rows, n_classes, dtype=dtype)
    return z, torch.randint(n_classes, (n_rows,))


def close_to_float32(loss, expected):
    assert_close(loss.double(), expected, atol=1e-6, rtol=1e-6)


def loss_and_gradient(z, y, alpha, **options):
    z = z.detach().requires_grad_()
    loss = entmax_loss(z, y, alpha, **options)
    loss.sum().backward()
    return loss.detach(), z.grad


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("n_classes", [1, 2, 17, 513, 10007])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_values_equal_the_oracle(alpha, n_classes, label_smoothing):
    for scale in (1e-3, 1, 10):
        z, y = random_problem(3, n_classes, scale)
        y[0] = z[0].argmax()
        expected = reference.entmax_loss(z, y, alpha, label_smoothing=label_smoothing)
        options = {"label_smoothing": label_smoothing, "reduction": "none"}
        loss = entmax_loss(z, y, alpha, **options)
        # the oracle's entropy loses 5 digits at alpha = 1 + 1e-5
        assert_close(loss, expected, atol=1e-10, rtol=1e-10)
        exact = reference.entmax_loss(z.float(), y, alpha, label_smoothing=label_smoothing)
        close_to_float32(entmax_loss(z.float(), y, alpha, **options), exact)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
@pytest.mark.parametrize("n_classes", [17, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_shifted_scores_lose_nothing(alpha, n_classes, shift):
    z, y = random_problem(3, n_classes, dtype=torch.float32)
    z += shift
    close_to_float32(entmax_loss(z, y, alpha, reduction="none"), reference.entmax_loss(z, y, alpha))


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 0), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_any_shape(alpha, shape):
    z = torch.randn(shape + (5,), dtype=torch.float64)
    y = torch.randint(5, shape)
    loss = entmax_loss(z, y, alpha, reduction="none")
    assert loss.shape == shape
    assert_close(loss, reference.entmax_loss(z, y, alpha))


def test_memory_layout_does_not_matter():
    whole = torch.randn(5, 6, dtype=torch.float64)
    y = torch.tensor([0, 1, 2])
    for z in (whole.t()[::2], whole[:1, :5].expand(3, 5)):
        loss = entmax_loss(z, y, reduction="none")
        assert_close(loss, reference.entmax_loss(z, y))


@pytest.mark.parametrize("n_classes", [7, LONG])
def test_one_alpha_per_row_equals_a_loop(n_classes):
    alphas = [1.0, 1.0001, 1.3, 1.5, 2.0, 2.5, 4.0]
    z, y = random_problem(7, n_classes)
    alpha = torch.tensor(alphas, dtype=torch.float64).unsqueeze(1)
    loss = entmax_loss(z, y, alpha, label_smoothing=0.1, reduction="none")
    for row, a in enumerate(alphas):
        expected = reference.entmax_loss(z[row], y[row], a, label_smoothing=0.1)
        # an alpha tensor's 1 has the entropy of 1 + 1e-8
        assert_close(loss[row], expected, atol=5e-7 if a == 1 else 1e-9, rtol=1e-9)


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
def test_label_smoothing_by_its_formula(alpha):
    z, y = random_problem(3, 5)
    y[:] = torch.tensor([0, 4, 2])
    plain = entmax_loss(z, y, alpha, ignore_index=1, reduction="none")
    smooth = entmax_loss(z, y, alpha, ignore_index=1, label_smoothing=0.3, reduction="none")
    for row in range(3):
        scores = z[row].tolist()
        mean = (scores[0] + scores[2] + scores[3] + scores[4]) / 4
        expected = plain[row].item() + 0.3 * (scores[y[row]] - mean)
        assert smooth[row].item() == pytest.approx(expected)


# --- the margin --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n_classes", [3, 17, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_loss_is_never_negative(alpha, n_classes, dtype):
    for scale in (0.1, 1, 10):
        z, _ = random_problem(300, n_classes, scale, dtype)
        assert (entmax_loss(z, z.argmax(1), alpha, reduction="none") >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n_classes", [3, LONG])
@pytest.mark.parametrize("alpha", [1.3, 1.5, 2, 3])
def test_loss_is_zero_from_the_margin_on(alpha, n_classes, dtype):
    margin = 1 / (alpha - 1)
    z = torch.zeros(2, n_classes, dtype=torch.float64)
    y = torch.tensor([1, 1])
    z[:, 1] = torch.tensor([1.01, 0.9]) * margin
    loss, gradient = loss_and_gradient(z.to(dtype), y, alpha, reduction="none")
    assert loss[0] == 0
    assert not gradient[0].any()
    assert loss[1] > 0
    assert gradient[1].any()


# --- ignored rows ------------------------------------------------------------------------------


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 1, 4, 99])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_ignored_rows_count_nothing(alpha, ignore_index, label_smoothing):
    z = torch.randn(6, 5, dtype=torch.float64)
    y = torch.tensor([2, ignore_index, 3, ignore_index, 2, 3])
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    expected = reference.entmax_loss(z, y, alpha, **options)
    loss, gradient = loss_and_gradient(z, y, alpha, reduction="none", **options)
    assert_close(loss, expected)
    assert loss[[1, 3]].tolist() == [0, 0]
    assert not gradient[[1, 3]].any()
    assert gradient[[0, 2, 4, 5]].any(1).all()
    assert_close(entmax_loss(z, y, alpha, reduction="sum", **options), expected.sum())
    assert_close(entmax_loss(z, y, alpha, reduction="mean", **options), expected.sum() / 4)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("ignore_index", [-100, 1])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_the_mean_of_no_rows_is_zero(alpha, ignore_index, label_smoothing):
    for n_rows in (0, 3):
        z = torch.randn(n_rows, 5)
        y = torch.full((n_rows,), ignore_index)
        options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
        loss, gradient = loss_and_gradient(z, y, alpha, **options)
        assert loss == 0
        assert gradient.shape == z.shape
        assert not gradient.any()


def test_a_single_class_that_is_ignored():
    z = torch.randn(2, 1)
    y = torch.zeros(2, dtype=torch.long)
    for alpha in FEW_ALPHAS:
        loss, gradient = loss_and_gradient(z, y, alpha, ignore_index=0, label_smoothing=0.1)
        assert loss == 0
        assert not gradient.any()


# --- masks and broken rows ---------------------------------------------------------------------


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("n_classes", [9, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_masked_classes_equal_no_classes(alpha, n_classes, label_smoothing):
    z, _ = random_problem(3, n_classes)
    masked = torch.arange(n_classes) % 3 == 2
    y = torch.tensor([0, 1, 3])
    options = {"ignore_index": 4, "label_smoothing": label_smoothing, "reduction": "none"}
    loss, gradient = loss_and_gradient(z.masked_fill(masked, -math.inf), y, alpha, **options)
    # classes 0, 1, 3, 4 of the long rows are 0, 1, 2, 3 of the short ones
    options["ignore_index"] = 3
    short = loss_and_gradient(z[:, ~masked], torch.tensor([0, 1, 2]), alpha, **options)
    assert loss.isfinite().all()
    assert_close(loss, short[0])
    assert_close(gradient[:, ~masked], short[1])
    assert not gradient[:, masked].any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
def test_each_row_smooths_over_its_own_classes(label_smoothing):
    z, y = random_problem(2, 6)
    z[0, 3], z[1, [0, 5]] = -math.inf, -math.inf
    y[:] = torch.tensor([0, 2])
    kept = [[0, 1, 2, 4, 5], [1, 2, 3, 4]]
    for alpha in FEW_ALPHAS:
        options = {"label_smoothing": label_smoothing}
        loss = entmax_loss(z, y, alpha, reduction="none", **options)
        for row in (0, 1):
            target = torch.tensor(kept[row].index(y[row]))
            expected = reference.entmax_loss(z[row, kept[row]], target, alpha, **options)
            assert_close(loss[row], expected)


@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_a_masked_target_costs_infinity(alpha, n_classes):
    z, _ = random_problem(2, n_classes)
    z[0, 1] = -math.inf
    loss = entmax_loss(z, torch.tensor([1, 1]), alpha, reduction="none")
    assert loss[0] == math.inf
    assert_close(loss[1], reference.entmax_loss(z[1], torch.tensor(1), alpha))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_all_masked_rows_cost_nothing(alpha, n_classes, label_smoothing):
    z, y = random_problem(3, n_classes)
    options = {"label_smoothing": label_smoothing, "reduction": "none"}
    whole = loss_and_gradient(z, y, alpha, **options)
    z[1] = -math.inf
    loss, gradient = loss_and_gradient(z, y, alpha, **options)
    assert loss[1] == 0
    assert not gradient[1].any()
    assert_close(loss[[0, 2]], whole[0][[0, 2]])
    assert_close(gradient[[0, 2]], whole[1][[0, 2]])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("n_classes", [5, LONG])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_a_broken_row_stays_alone(alpha, n_classes, bad, label_smoothing):
    z, _ = random_problem(4, n_classes)
    y = torch.tensor([0, 1, 2, 3])
    options = {"ignore_index": 3, "label_smoothing": label_smoothing, "reduction": "none"}
    whole = loss_and_gradient(z, y, alpha, **options)
    z[1, 4] = bad
    z[3, 0] = bad
    loss, gradient = loss_and_gradient(z, y, alpha, **options)
    assert loss[1].isnan()
    assert gradient[1].isnan().any()
    assert loss[3] == 0, "an ignored row counts nothing, whatever it holds"
    assert not gradient[3].any()
    assert_close(loss[[0, 2]], whole[0][[0, 2]])
    assert_close(gradient[[0, 2]], whole[1][[0, 2]])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=["nan", "inf", "masked"])
@pytest.mark.parametrize("alpha", FEW_ALPHAS + ["tensor"])
def test_a_graph_of_the_gradient_ignores_ignored_rows(alpha, bad):
    z, _ = random_problem(3, 5)
    z[1] = bad
    z.requires_grad_()
    inputs = [z]
    if alpha == "tensor":
        alpha = torch.tensor(1.3, requires_grad=True)
        inputs.append(alpha)
    y = torch.tensor([0, -100, 2])
    first = torch.autograd.grad(entmax_loss(z, y, alpha), inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.sin().sum() for g in first), inputs)
    for gradient in first + second:
        assert gradient.isfinite().all()
    assert not first[0][1].any()
    assert not second[0][1].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=["nan", "inf", "masked"])
def test_a_shared_alpha_ignores_ignored_rows(bad):
    z, y = random_problem(3, 5)
    y[1] = -100
    gradients = []
    for value in (0.0, bad):
        z[1] = value
        alpha = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
        entmax_loss(z, y, alpha).backward()
        gradients.append(alpha.grad)
    assert_close(gradients[1], gradients[0])


# --- dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("n_classes", [17, 513, 70_000])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_scores(dtype, alpha, n_classes, label_smoothing):
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


def test_a_sum_of_16_bit_losses_is_taken_in_float32():
    z = torch.zeros(5000, 4, dtype=torch.bfloat16)
    y = torch.zeros(5000, dtype=torch.long)
    row = reference.entmax_loss(z[:1], y[:1]).item()
    assert entmax_loss(z, y, reduction="sum").item() == pytest.approx(5000 * row, rel=2**-8)
    assert entmax_loss(z, y).item() == pytest.approx(row, rel=2**-8)


# --- statistics --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [1, 9, LONG, 10007])
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_statistics_equal_brute_force(alpha, n_classes):
    for scale in (0.1, 2, 6):
        z, y = random_problem(5, n_classes, scale)
        y[0] = z[0].argmax()
        y[1] = z[1].argmin()
        rows = entmax_loss_rows(z, y, alpha)
        probs = reference.entmax(z, alpha)
        assert_close(rows.loss, reference.entmax_loss(z, y, alpha), atol=1e-10, rtol=1e-10)
        assert rows.support_size.tolist() == [sum(p > 0 for p in row) for row in probs.tolist()]
        assert_close(rows.target_probs, probs[range(5), y], atol=1e-12, rtol=1e-9)
        assert rows.correct.tolist() == (z.argmax(1) == y).tolist()


@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_statistics_of_rows_that_do_not_count(alpha):
    z, _ = random_problem(4, 5)
    z[1] = -math.inf
    z[2] = math.nan
    y = torch.tensor([2, 0, 2, 2])
    rows = entmax_loss_rows(z, y, alpha, ignore_index=2)
    for column in rows:
        assert not column.any()


@pytest.mark.parametrize("shape", [(), (2, 3), (0,), (2, 0)], ids=str)
@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_statistics_have_their_shape_and_type(alpha, shape):
    rows = entmax_loss_rows(torch.randn(shape + (4,)).half(), torch.randint(4, shape), alpha)
    assert [column.shape for column in rows] == [shape] * 4
    types = [torch.float32, torch.int64, torch.float32, torch.bool]
    assert [column.dtype for column in rows] == types


@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_no_classes(alpha):
    loss, gradient = loss_and_gradient(torch.zeros(3, 0), torch.full((3,), -100), alpha)
    assert loss == 0
    assert gradient.shape == (3, 0)


@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_a_tied_target_counts_as_correct(alpha):
    z = torch.tensor([[1.0, 1.0, 0.0]] * 3)
    assert entmax_loss_rows(z, torch.arange(3), alpha).correct.tolist() == [True, True, False]


@pytest.mark.parametrize("alpha", FEW_ALPHAS)
def test_statistics_receive_no_gradient(alpha):
    z, y = random_problem(3, 5)
    rows = entmax_loss_rows(z.requires_grad_(), y, alpha)
    assert [column.requires_grad for column in rows] == [True, False, False, False]
