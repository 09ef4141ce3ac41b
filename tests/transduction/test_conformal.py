"""Critical temperatures, the coverage that they promise, and risk against coverage."""

import math
import random

import pytest
import torch

from fairseq_entmax.functional import reference
from fairseq_entmax.transduction import Transducer, conformal
from fairseq_entmax.transduction.abstention import area, risk_coverage

from .models import ITEMS, enumerate_answers, make


@pytest.mark.parametrize("alpha", [1.1, 1.5, 2.0, 3.0])
def test_a_target_is_possible_above_its_temperature_only(alpha):
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(40, 7, generator=generator, dtype=torch.float64)
    targets = torch.randint(7, (40,), generator=generator)
    critical = conformal.critical_temperatures(scores, targets, alpha)
    rows = torch.arange(40)
    best = scores.argmax(-1) == targets
    assert torch.equal(critical == 0, best) and best.any() and not best.all()
    for row in rows[~best].tolist():
        t = critical[row]
        above, below = (
            reference.entmax(scores[row] / (t * factor), alpha)[targets[row]]
            for factor in (1.01, 0.99)
        )
        assert above > 0 and below == 0


def test_softmax_and_large_scores():
    scores = torch.tensor([[1000.0, 0.0, -1000.0]])
    assert conformal.critical_temperatures(scores, torch.tensor([2]), 1.0) == 0
    found = conformal.critical_temperatures(scores, torch.tensor([2]), 1.01)
    assert torch.isfinite(found) and found > 0.01 * 2000


def test_coverage_holds_for_exchangeable_words():
    """Each of n + 1 words in turn is the new one: at least the asked share is covered, exactly."""
    rng = random.Random(1)
    for n, coverage in ((19, 0.9), (40, 0.95), (9, 0.5), (100, 0.99)):
        values = [rng.random() for _ in range(n + 1)]
        covered = [
            t < conformal.temperature_for(values[:i] + values[i + 1 :], coverage)
            for i, t in enumerate(values)
        ]
        assert sum(covered) >= coverage * (n + 1) - 1e-9
        assert sum(covered) <= coverage * (n + 1) + 1 + 1e-9


def test_too_few_words_for_a_coverage():
    assert conformal.temperature_for([0.1] * 98, 0.99) == math.inf
    assert conformal.temperature_for([0.1] * 99, 0.99) == pytest.approx(0.1, rel=1e-4)
    assert conformal.temperature_for([0.1, math.inf, math.inf], 0.75) == math.inf
    with pytest.raises(ValueError, match="between 0 and 1, got 90"):
        conformal.temperature_for([0.1], 90)


def test_halves():
    rng = random.Random(2)
    critical = [rng.expovariate(1) for _ in range(400)]
    check = conformal.check_on_halves(critical, 0.9)
    assert check.mean == pytest.approx(0.9, abs=0.02)
    assert check.low < check.mean < check.high
    assert check == conformal.check_on_halves(critical, 0.9)
    with pytest.raises(ValueError, match="two words, got 1"):
        conformal.check_on_halves([1.0], 0.9)


@pytest.mark.parametrize("models", [1, 2], ids=["model", "ensemble"])
@torch.no_grad()
def test_words_are_possible_above_their_temperature(tmp_path, models):
    """The decoder itself, at temperatures around the critical one, against enumeration."""
    path = make(tmp_path, models=models)
    transducer = Transducer.load(path, cpu=True)
    items = [item._replace(target=target) for item, target in zip(ITEMS, ("ab", "c", "ba", "a"))]
    critical = conformal.word_temperatures(transducer, items)
    seen = 0
    for item, temperature in zip(items, critical):
        if temperature == 0:
            continue
        seen += 1
        above = enumerate_answers(transducer, item, 1.5, temperature * 1.01)
        below = enumerate_answers(transducer, item, 1.5, temperature * 0.99)
        assert item.target in above and item.target not in below
        wide = Transducer(path, temperature=temperature * 1.01, cpu=True).answers([item])[0]
        assert item.target in dict(wide.candidates)
    assert seen
    unknown = conformal.word_temperatures(transducer, [items[0]._replace(target="aZ")])
    assert unknown == [math.inf]


def by_hand(answers, confidence):
    given = [right for c, right in answers if c >= confidence]
    return len(given) / len(answers), 1 - sum(given) / len(given)


def test_risk_and_coverage():
    rng = random.Random(3)
    answers = [(rng.choice([0.2, 0.5, 0.9, 1.0]), rng.random() < 0.7) for _ in range(50)]
    points = risk_coverage(answers)
    assert [p.confidence for p in points] == sorted({c for c, _ in answers}, reverse=True)
    for point in points:
        assert (point.coverage, point.risk) == pytest.approx(by_hand(answers, point.confidence))
    many = [(i / 1000, i % 3 > 0) for i in range(1000)]
    points = risk_coverage(many)
    assert len(points) == 200 and points[-1].coverage == 1 and points[0].confidence == 0.999
    assert area(risk_coverage([(1.0, True), (0.5, False)])) == pytest.approx(0.25)
    assert risk_coverage([]) == []
