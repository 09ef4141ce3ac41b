"""What validation logs of the probabilities, against the oracle and against fairseq's own ppl."""

import math

import pytest
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.logging import metrics

from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from fairseq_entmax.functional import reference
from tests.builders import Task, batch, build, sharpen

TASK = Task()
PAD = TASK.target_dictionary.pad()


def logged(criterion, model, samples):
    """What fairseq prints after these batches."""
    with metrics.aggregate(new_root=True) as aggregated, torch.no_grad():
        type(criterion).reduce_metrics([criterion(model, sample)[2] for sample in samples])
    return aggregated.get_smoothed_values()


def sparse_model(alpha, **options):
    return sharpen(build("transformer_entmax_tiny", task=TASK, output_alpha=alpha, **options))


def by_hand(model, samples, alpha, epsilon, temperature=1.0):
    probs, target = [], []
    for sample in samples:
        with torch.no_grad():
            scores = model(**sample["net_input"])[0].double() / temperature
        counted = sample["target"] != PAD
        probs.append(reference.entmax(scores, alpha)[counted])
        target.append(sample["target"][counted])
    probs, target = torch.cat(probs), torch.cat(target)
    return {
        "ppl_eps": reference.epsilon_perplexity(probs, target, epsilon).item(),
        "js": reference.js_divergence(probs, target).mean().item(),
        "sparsemax_score": reference.sparsemax_score(probs, target).mean().item(),
    }


def assert_same(found, expected):
    assert found["ppl_eps"] == pytest.approx(expected["ppl_eps"], rel=1e-3)
    for name in ("js", "sparsemax_score"):
        assert found[name] == pytest.approx(expected[name], abs=6e-5)


@pytest.mark.parametrize("fused", ["auto", "off"])
@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_of_a_sparse_model(alpha, fused):
    model = sparse_model(alpha).eval()
    samples = [batch(TASK), batch(TASK, lengths=(4, 6))]
    criterion = EntmaxLossCriterion(
        TASK, False, fused_output=fused, label_smoothing=0.1, ppl_epsilon=1e-3
    )
    found = logged(criterion, model, samples)
    assert alpha == 1 or found["gold_in_support"] < 1
    assert_same(found, by_hand(model, samples, alpha, 1e-3))


def test_scores_are_divided_by_the_temperature():
    model = sparse_model(1.5, output_temperature=3.0).eval()
    found = logged(EntmaxLossCriterion(TASK, False), model, [batch(TASK)])
    assert_same(found, by_hand(model, [batch(TASK)], 1.5, 1e-6, temperature=3.0))


def test_softmax_has_fairseqs_own_perplexity():
    model = sparse_model(1.0).eval()
    ours = logged(EntmaxLossCriterion(TASK, False, ppl_epsilon=0.0), model, [batch(TASK)])
    stock = logged(CrossEntropyCriterion(TASK, False), model, [batch(TASK)])
    assert ours["ppl_eps"] == pytest.approx(stock["ppl"], rel=1e-3)
    assert ours["ppl_eps"] == pytest.approx(2 ** stock["loss"], rel=1e-3)


def test_an_impossible_reference_without_epsilon():
    model = sparse_model(2.0).eval()
    found = logged(EntmaxLossCriterion(TASK, False, ppl_epsilon=0.0), model, [batch(TASK)])
    assert found["gold_in_support"] < 1 and found["ppl_eps"] == math.inf


def test_training_does_not_pay_for_it(monkeypatch):
    monkeypatch.setattr(EntmaxLossCriterion, "squared_norms", None)
    criterion = EntmaxLossCriterion(TASK, False)
    _, _, log = criterion(sparse_model(1.5).train(), batch(TASK))
    assert "js" not in log


def test_epsilon_is_checked():
    with pytest.raises(ValueError, match="epsilon must be a number >= 0, got -1"):
        EntmaxLossCriterion(TASK, False, ppl_epsilon=-1)
