"""A model on an accelerator: what its update and search wait for, beside the softmax twin."""

import collections

import pytest
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.logging import metrics
from fairseq.sequence_generator import SequenceGenerator

from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from fairseq_entmax.decoding import ExactSearch, make_sparse
from fairseq_entmax.decoding.frontier import Frontier
from tests.builders import Task, batch, build
from tests.pretend_device import PretendDevice, module_to_device, to_device

TASK = Task()
TWINS = {
    "alpha 1.5": {"output_alpha": 1.5, "attention_alpha": 1.5},
    "learned": {"attention_alpha": 1.5, "learn_attention_alpha": True},
}


def counts_of(arch, criterion, **flags):
    """(waits, float64 operations) of the update, of its log, and of decoding the batch."""
    model = build(arch, task=TASK, **flags).train()
    found = {}
    with PretendDevice() as pretended:

        def note(name):
            found[name] = pretended.waits.copy(), pretended.float64.copy()
            pretended.waits.clear()
            pretended.float64.clear()

        module_to_device(model)
        sample = to_device(batch(TASK))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        note("moving")
        loss, _, log = criterion(model, sample)
        loss.backward()
        optimizer.step()
        note("update")
        with metrics.aggregate():
            criterion.reduce_metrics([log])
        note("log")
        model.eval()
        _, _, log = criterion(model, sample)
        note("validation")
        with metrics.aggregate():
            criterion.reduce_metrics([log])
        note("log of validation")
        generator = SequenceGenerator([model], TASK.target_dictionary, beam_size=3, max_len_b=6)
        if flags:
            make_sparse(generator, nbest=2)
        generator.generate([model], sample)
        note("decoding")
    return found


@pytest.fixture(scope="module")
def stock():
    return counts_of("transformer", CrossEntropyCriterion(TASK, False))


@pytest.mark.parametrize("twin", list(TWINS))
def test_waits(stock, twin):
    found = counts_of("transformer_entmax", EntmaxLossCriterion(TASK, False), **TWINS[twin])
    nothing = collections.Counter()
    assert found["update"] == (stock["update"][0], nothing)  # fairseq's own, and no float64
    assert found["log"][0] == {"to cpu": 1}
    assert found["log of validation"][0] == {"to cpu": 1}  # with the alpha of every head
    more = found["decoding"][0] - stock["decoding"][0]
    assert more == {"to cpu": 1}  # the numbers of all hypotheses


def test_exact_search_waits_twice_for_each_call_of_the_decoder(monkeypatch):
    """For the size of what it found, and for all of its numbers; its books are on the CPU."""
    model = build("transformer_entmax", task=TASK, **TWINS["alpha 1.5"]).eval()
    found = []

    def search(sample):
        options = {"beam_size": 2, "max_len_b": 2}
        generator = SequenceGenerator([model], TASK.target_dictionary, **options)
        hypotheses = ExactSearch(generator, nbest=2).generate([model], sample)
        return [hypothesis for sentence in hypotheses for hypothesis in sentence]

    here = [h["tokens"].tolist() for h in search(batch(TASK))]
    with PretendDevice() as pretended:

        def counting(name):
            method = getattr(Frontier, name)

            def counted(*args):
                before = pretended.waits.copy()
                result = method(*args)
                found.append((name, pretended.waits - before))
                return result

            monkeypatch.setattr(Frontier, name, counted)

        for name in ("_decode", "expand", "prune", "forget"):
            counting(name)
        module_to_device(model)
        there = [h["tokens"].tolist() for h in search(to_device(batch(TASK)))]
    assert there == here
    decoded = [waits for name, waits in found if name == "_decode"]  # by fairseq's decoder
    expanded = [waits for name, waits in found if name == "expand"]
    assert len(decoded) == len(expanded) > 1
    for waits, before in zip(expanded, decoded):
        assert waits - before == {"nonzero": 1, "to cpu": 1}
    assert not any(waits for name, waits in found if name in ("prune", "forget"))
