"""A model on an accelerator: what its update and search wait for, beside the softmax twin."""

import collections

import pytest
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.logging import metrics
from fairseq.sequence_generator import SequenceGenerator

from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from fairseq_entmax.decoding import make_sparse
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
        generator = SequenceGenerator(
            [model.eval()], TASK.target_dictionary, beam_size=3, max_len_b=6
        )
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
    more = found["decoding"][0] - stock["decoding"][0]
    assert more == {"to cpu": 1}  # the numbers of all hypotheses
