"""Support and attended positions along the best hypotheses."""

import pytest
import torch

from fairseq_entmax.analysis import Candidate, Sentence, measure_sparsity
from fairseq_entmax.functional import reference
from tests.builders import Task, build, sharpen

SENTENCES = [("w1 w2 w3 w4", "w5 w6"), ("w7", "w8 w9 w10"), ("w2 w2", ""), ("w3 unseen", "w1")]


def sentence(number, source, answer):
    return Sentence(number, source.split(), [], [Candidate(answer.split(), -1.0)])


def models(arch, **flags):
    return [sharpen(build(arch, seed=seed, **flags)) for seed in (1, 2)]


def counted_by_hand(ensemble, task):
    """Steps, symbols with p > 0 and attended positions, one sentence at a time."""
    words = task.source_dictionary
    steps = support = attended = 0
    for source, answer in SENTENCES:
        tokens = torch.tensor([[*map(words.index, source.split()), words.eos()]])
        previous = torch.tensor([[words.eos(), *map(words.index, answer.split())]])
        outputs = [m(tokens, torch.tensor([tokens.numel()]), previous) for m in ensemble]
        probs = [
            reference.entmax(scores.double(), model.decoder.output_alpha)
            for model, (scores, _) in zip(ensemble, outputs)
        ]
        attentions = [
            extra["attn"][0] if isinstance(extra, dict) else extra for _, extra in outputs
        ]
        steps += previous.numel()
        support += int((sum(probs) > 0).sum())
        attended += int((sum(attentions) > 0).sum())
    return steps, support, attended


@pytest.mark.parametrize("size", [1, 2], ids=["model", "ensemble"])
@pytest.mark.parametrize("arch", ["lstm_entmax", "two_headed_lstm_entmax", "transformer_entmax"])
@torch.no_grad()
def test_equals_counting_sentence_by_sentence(arch, size):
    task, ensemble = Task(), models(arch, output_alpha=1.75, attention_alpha=2.0)[:size]
    found = measure_sparsity(
        ensemble, task, [sentence(i, *pair) for i, pair in enumerate(SENTENCES)]
    )
    steps, support, attended = counted_by_hand(ensemble, task)
    assert found.support == pytest.approx(support / steps)
    assert found.attended == pytest.approx(attended / steps)
    assert 1 <= found.support < len(task.target_dictionary)


def test_no_sentences():
    with pytest.raises(ValueError, match="no sentences"):
        measure_sparsity(models("lstm_entmax"), Task(), [])
