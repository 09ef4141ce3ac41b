"""What holds for every row of scores and every alpha, on rows that hypothesis makes up."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, entmax_loss, reference

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

# softmax, the closed forms and both solvers for the rest
alphas = st.one_of(st.sampled_from([1.0, 1.5, 2.0]), st.floats(1.01, 2), st.floats(2, 4))
score = st.floats(-30, 30, width=32)


@st.composite
def short_rows(draw):
    return torch.tensor(draw(st.lists(score, min_size=1, max_size=12)))


@st.composite
def long_rows(draw):
    """Rows of which only candidates are solved, with a few scores set by hypothesis."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    z = torch.randn(draw(st.integers(512, 700)), generator=generator)
    z *= draw(st.sampled_from([0.0, 0.01, 1.0, 8.0]))
    places = st.integers(0, len(z) - 1)
    for place, value in draw(st.lists(st.tuples(places, score), max_size=5)):
        z[place] = value
    return z


@st.composite
def grid_rows(draw):
    """Scores that are multiples of 1/64: sums of them are exact, and ties are common."""
    return torch.tensor(draw(st.lists(st.integers(-640, 640), min_size=1, max_size=12))) / 64


rows = st.one_of(short_rows(), long_rows())


def places_of(z):
    return st.integers(0, len(z) - 1)


@given(rows, alphas)
def test_probs_lie_in_the_simplex(z, alpha):
    probs = entmax(z, alpha)
    assert (probs >= 0).all()
    assert probs.double().sum().item() == pytest.approx(1, abs=2e-6)


@given(rows, alphas)
def test_probs_equal_the_oracle(z, alpha):
    expected = reference.entmax(z, alpha)
    assert ((entmax(z, alpha) - expected).abs() <= 2e-6 * expected.max()).all()


@given(rows, alphas, st.randoms(use_true_random=False))
def test_permuted_scores_give_permuted_probs(z, alpha, random):
    order = list(range(len(z)))
    random.shuffle(order)
    probs = entmax(z, alpha)
    assert_close(entmax(z[order], alpha), probs[order], atol=2e-6, rtol=0)


@given(grid_rows(), alphas, st.integers(-10_000, 10_000))
def test_a_constant_changes_nothing(z, alpha, constant):
    assert torch.equal(entmax(z + constant, alpha), entmax(z, alpha))


@given(rows, alphas)
def test_larger_scores_have_larger_probs(z, alpha):
    probs = entmax(z, alpha)[z.argsort()]
    assert (probs.diff() >= 0).all()


@given(grid_rows(), alphas)
def test_equal_scores_have_equal_probs(z, alpha):
    probs = entmax(z, alpha)
    for value in z.unique():
        assert probs[z == value].unique().numel() == 1


@given(st.data(), rows, alphas, st.floats(0, 5))
def test_a_raised_score_gains_and_no_other_does(data, z, alpha, by):
    place = data.draw(places_of(z))
    raised = z.clone()
    raised[place] += by
    gain = entmax(raised, alpha) - entmax(z, alpha)
    assert gain[place] >= -1e-6
    gain[place] = 0
    assert (gain <= 1e-6).all()


@given(st.data(), rows, alphas)
def test_a_masked_entry_equals_no_entry(data, z, alpha):
    place = data.draw(places_of(z))
    longer = torch.cat([z[:place], torch.tensor([-math.inf]), z[place:]])
    probs = entmax(longer, alpha)
    assert probs[place] == 0
    kept = torch.cat([probs[:place], probs[place + 1 :]])
    assert_close(kept, entmax(z, alpha), atol=2e-6, rtol=0)


@given(rows, st.floats(1.01, 4))
def test_nothing_is_left_beyond_the_margin(z, alpha):
    far = (z.max().double() - z.double()) * (alpha - 1) > 1 + 1e-6
    assert not entmax(z, alpha)[far].any()


@given(st.data(), rows, alphas)
def test_the_loss_equals_the_oracle(data, z, alpha):
    target = torch.tensor(data.draw(places_of(z)))
    expected = reference.entmax_loss(z, target, alpha)
    loss = entmax_loss(z, target, alpha)
    digits = 1e-5 if alpha == 1 else 2e-6  # alpha 1 is torch's log_softmax, to the last bit
    assert_close(loss.double(), expected, atol=digits, rtol=1e-6)
    assert loss >= 0


@given(st.data(), rows, alphas)
def test_the_slope_of_the_loss_sums_to_zero(data, z, alpha):
    target = torch.tensor(data.draw(places_of(z)))
    z = z.requires_grad_()
    entmax_loss(z, target, alpha).backward()
    assert z.grad[target] <= 0
    assert z.grad.double().sum().item() == pytest.approx(0, abs=2e-6)


@given(st.data(), rows, st.floats(1.01, 4))
def test_the_loss_is_zero_beyond_the_margin(data, z, alpha):
    target = data.draw(places_of(z))
    z[target] = z.max() + (1 + 1e-4) / (alpha - 1) + 1e-4
    for other in (z, z.double()):
        other = other.clone().requires_grad_()
        loss = entmax_loss(other, torch.tensor(target), alpha)
        loss.backward()
        assert loss == 0
        assert not other.grad.any()
