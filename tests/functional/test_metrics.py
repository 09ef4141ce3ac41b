"""Metrics of sparse distributions against their definitions, on dense and on sparse rows."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import metrics, reference

ALPHAS = [1.0, 1.2, 1.5, 2.0]
over_alphas = pytest.mark.parametrize("alpha", ALPHAS)


def rows(alpha, n=200, n_classes=30):
    """Scores, references and probabilities; some references have p = 0, some 1."""
    generator = torch.Generator().manual_seed(3)
    scores = 3 * torch.randn(n, n_classes, generator=generator, dtype=torch.float64)
    target = torch.randint(n_classes, (n,), generator=generator)
    scores[: n // 4, 5] += 20
    target[: n // 8] = 5
    probs = reference.entmax(scores, alpha)
    return scores, target, probs, probs.gather(1, target[:, None])[:, 0]


@over_alphas
def test_metrics_are_their_definitions(alpha):
    scores, target, probs, gold = rows(alpha)
    assert alpha == 1 or ((gold == 0).any() and (gold == 1).any())
    for epsilon in (1e-6, 0.01, 1.0):
        expected = reference.epsilon_perplexity(probs, target, epsilon)
        assert_close(metrics.epsilon_perplexity(gold, 30, epsilon), expected)
    assert_close(metrics.js_divergence(gold), reference.js_divergence(probs, target))
    norm = metrics.squared_norm(scores, alpha)
    assert_close(norm, probs.square().sum(-1))
    found = metrics.sparsemax_score(gold, norm)
    assert_close(found, reference.sparsemax_score(probs, target))


@over_alphas
def test_of_an_output_layer(alpha, monkeypatch):
    monkeypatch.setattr(metrics, "_CHUNK_SCORES", 90)  # three rows at a time
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (torch.randn(*s, generator=generator) for s in ((2, 7, 8), (30, 8), (30,)))
    for b in (None, bias):
        scores = torch.nn.functional.linear(x, weight, b)
        found = metrics.linear_squared_norm(x, weight, alpha, b)
        assert_close(found, metrics.squared_norm(scores, alpha))
        assert not found.requires_grad


def test_without_epsilon_it_is_perplexity():
    gold = torch.tensor([0.5, 0.25])
    assert_close(metrics.epsilon_perplexity(gold, 10, 0.0), torch.tensor(math.sqrt(8)))
    assert metrics.epsilon_perplexity(torch.tensor([0.5, 0.0]), 10, 0.0) == math.inf


def test_bounds():
    gold = torch.tensor([0.0, 1.0])
    assert_close(metrics.js_divergence(gold), torch.tensor([math.log(2), 0.0]))
    assert_close(metrics.sparsemax_score(gold, torch.ones(2)), torch.tensor([0.0, 1.0]))


def test_16_bits_are_summed_in_32():
    scores = torch.zeros(1, 4096, dtype=torch.bfloat16)
    assert_close(metrics.squared_norm(scores, 1.0), torch.tensor([1 / 4096]))


@pytest.mark.parametrize("epsilon", [-0.1, math.nan, math.inf])
def test_epsilon_out_of_range(epsilon):
    with pytest.raises(ValueError, match=f"epsilon must be a number >= 0, got {epsilon}"):
        metrics.epsilon_perplexity(torch.ones(1), 3, epsilon)
