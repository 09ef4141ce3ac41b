"""Next-token distributions, against models that are written down."""

import pytest
import torch

from fairseq_entmax.analysis.steps import next_token_probs, steps
from fairseq_entmax.functional import reference
from tests.builders import Task, build, sharpen
from tests.decoding.table_model import dictionary

WORDS = dictionary("abc")
EOS = WORDS.eos()
A, B, C = map(WORDS.index, "abc")


def row(**probs):
    values = torch.zeros(len(WORDS))
    for symbol, p in probs.items():
        values[EOS if symbol == "end" else WORDS.index(symbol)] = p
    return values


PROBS = torch.stack([row(a=0.7, b=0.2, c=0.1), row(b=1.0), row(end=0.9, a=0.1)])


def test_tokens_with_p_above_0_by_falling_probability():
    first, second, third = steps(PROBS, WORDS, torch.tensor([A, B, EOS]))
    assert first.tokens == ["a", "b", "c"] and first.support == 3 and first.rest == 0
    assert first.probs == pytest.approx([0.7, 0.2, 0.1])
    assert second.tokens == ["b"] and second.support == 1
    assert third.chosen == "</s>" and third.gold is None


def test_gold_is_shown_while_the_string_is_on_its_way():
    found = steps(PROBS, WORDS, torch.tensor([A, B, EOS]), gold=torch.tensor([A, C, EOS]))
    assert [step.gold for step in found] == ["a", "c", None]
    assert found[1].tokens == ["b", "c"] and found[1].probs == [1.0, 0.0]


def test_tokens_left_out_are_summed_up():
    (step,) = steps(PROBS[:1], WORDS, torch.tensor([C]), most=1)
    assert step.tokens == ["a", "c"]  # the chosen one is always there
    assert step.rest == pytest.approx(0.2) and step.support == 3


@torch.no_grad()
@pytest.mark.parametrize("arch", ["lstm_entmax", "transformer_entmax"])
def test_an_ensemble_has_the_mean_of_the_probabilities(arch):
    models = [sharpen(build(arch, seed=seed, output_alpha=1.5)) for seed in (1, 2)]
    tokens, target = torch.tensor([[4, 5, 6, 2]]), torch.tensor([7, 8, 2])
    net_input = {"src_tokens": tokens, "src_lengths": torch.tensor([4])}
    found = next_token_probs(models, {"net_input": net_input}, target)
    previous = torch.tensor([[2, 7, 8]])
    scores = [m(**net_input, prev_output_tokens=previous)[0][0] for m in models]
    expected = sum(reference.entmax(s.double(), 1.5) for s in scores) / 2
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    assert found.shape == (3, len(Task().target_dictionary))
