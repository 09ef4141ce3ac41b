"""Minimum risk training: the risk by brute force, its gradient, and that it falls."""

import itertools

import pytest
import torch
from fairseq.logging import metrics
from torch.testing import assert_close

from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from fairseq_entmax.criterions.entmax_risk import EntmaxRiskConfig, EntmaxRiskCriterion
from fairseq_entmax.scoring import levenshtein
from tests.builders import Task, batch, build

TASK = Task(3)
EOS, PAD = TASK.target_dictionary.eos(), TASK.target_dictionary.pad()
EVERYTHING = {"candidates": 500, "candidate_mass": 1.0, "candidate_expansions": 5000}
SMALL = {"candidates": 6, "candidate_expansions": 20, "candidate_max_len_b": 1}


def tiny(alpha=1.5):
    return build("transformer_entmax_tiny", task=TASK, output_alpha=alpha)


def pair():
    sample = batch(TASK, lengths=(1, 2))
    sample["net_input"].pop("src_lengths")
    sample["net_input"]["src_lengths"] = (sample["net_input"]["src_tokens"] != PAD).sum(1)
    return sample


def criterion(**options):
    return EntmaxRiskCriterion(TASK, **{**SMALL, **options})


def log_prob(model, net_input, row, string):
    """log p of a string with EOS, word by word, without a batch."""
    source = net_input["src_tokens"][row : row + 1]
    source = source[source != PAD][None]
    previous = torch.tensor([[EOS, *string[:-1]]])
    output = model(source, torch.tensor([source.size(1)]), previous)
    probs = model.get_normalized_probs(output, log_probs=False)[0].double()
    return probs.gather(1, torch.tensor(string)[:, None]).log().sum()


def brute_force(model, sample, longest):
    """The risk of each sentence over every string of 1 to ``longest`` words."""
    words = [t for t in range(len(TASK.target_dictionary)) if t not in (EOS, PAD)]
    risks = []
    strings = [[*s, EOS] for n in range(1, longest + 1) for s in itertools.product(words, repeat=n)]
    for row, target in enumerate(sample["target"].tolist()):
        target = [t for t in target if t != PAD]
        with torch.no_grad():
            probs = [log_prob(model, sample["net_input"], row, s).exp().item() for s in strings]
        costs = [levenshtein(s[:-1], target[:-1]) for s in strings]
        risks.append(sum(p * c for p, c in zip(probs, costs)) / sum(probs))
    return risks


def test_the_risk_is_that_of_all_strings():
    model, sample = tiny(), pair()
    everything = criterion(**EVERYTHING, candidate_max_len_b=-2)
    longest = int(1.5 * sample["net_input"]["src_tokens"].size(1)) - 2
    with torch.no_grad():
        found = everything.list_candidates(model, sample)
        risks = everything.risks(model, sample, found)
    expected = brute_force(model, sample, longest)
    assert len(found.rows) > 20 and max(expected) > 0.1
    assert risks.tolist() == pytest.approx(expected, rel=1e-4)
    assert not model.training


def test_gradient_by_differences():
    model, sample = tiny(1.5).double(), pair()
    search = criterion()
    found = search.list_candidates(model, sample)
    # where the output is bound to float32 there is nothing to difference
    weight = model.decoder.output_projection.weight
    search.risks(model, sample, found).sum().backward()
    place = weight.grad.abs().argmax().item()
    slope = weight.grad.view(-1)[place].item()
    values = []
    with torch.no_grad():
        for step in (1e-2, -1e-2):
            weight.view(-1)[place] += step
            values.append(search.risks(model, sample, found).sum().item())
            weight.view(-1)[place] -= step
    assert slope == pytest.approx((values[0] - values[1]) / 2e-2, rel=0.05)


def test_a_candidate_that_dropout_forbids_has_a_gradient_and_no_nan():
    model, sample = tiny(2.0), pair()
    found = criterion().list_candidates(model, sample)
    impossible = found._replace(
        tokens=[[t if t == EOS else TASK.target_dictionary.bos() for t in s] for s in found.tokens]
    )
    risks = criterion().risks(model, sample, impossible)
    risks.sum().backward()
    assert (risks >= 0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_risk_falls():
    torch.manual_seed(1)
    model, sample = tiny(1.5), pair()
    search = criterion()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    risks = []
    for _ in range(10):
        model.train()
        loss, size, log = search(model, sample)
        assert model.training and size == 2
        risks.append(log["risk"].item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert risks[-1] < 0.7 * risks[0]


def test_what_is_logged():
    model, sample = tiny(), pair()
    total, n, log = criterion(loss_weight=0.5)(model, sample)
    plain, _, _ = EntmaxLossCriterion(TASK, True)(model, sample)
    assert_close(total.double(), log["risk"] + 0.5 * plain.double(), rtol=1e-5, atol=1e-5)
    with metrics.aggregate(new_root=True) as aggregated:
        EntmaxRiskCriterion.reduce_metrics([log, log])
    found = aggregated.get_smoothed_values()
    assert found["risk"] == pytest.approx(log["risk"].item() / n, abs=1e-4)
    assert 0 < found["listed_mass"] <= 1 and found["candidates"] > 0
    assert {"support", "js"} <= set(found)


def test_flags_build_it():
    config = EntmaxRiskConfig(risk_utility="chrf", candidates=3)
    config.sentence_avg = False
    made = EntmaxRiskCriterion.build_criterion(config, TASK)
    assert made.search_options["nbest"] == 3 and made.sentence_avg


@pytest.mark.parametrize("wrong", [{"candidates": 0}, {"candidate_mass": 1.5}])
def test_flags_out_of_range(wrong):
    with pytest.raises(ValueError, match="--candidates"):
        EntmaxRiskCriterion(TASK, **wrong)


def test_a_language_model_is_refused():
    class Decoder(torch.nn.Module):
        pass

    with pytest.raises(ValueError, match="needs a model with encoder and decoder, got Decoder"):
        criterion().list_candidates(Decoder(), {})
