"""--learn-attention-alpha: in every attention of a model, saved, logged, trained."""

import copy
import math

import pytest
import torch
from fairseq import options
from fairseq.logging import metrics
from torch.testing import assert_close

from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from fairseq_entmax.modules import learned_alphas
from tests.builders import Task, batch, build

TASK = Task()
for i in range(20):  # what the second head of the two-headed LSTM looks at
    TASK.source_dictionary.add_symbol(f"<tag{i}>")
PLACES = {
    "transformer_entmax_tiny": [
        *(f"encoder.layers.{i}.self_attn" for i in range(2)),
        *(f"decoder.layers.{i}.{kind}" for i in range(2) for kind in ("self_attn", "encoder_attn")),
    ],
    "lstm_entmax": ["decoder.attention"],
    "two_headed_lstm_entmax": [f"decoder.attention.heads.{i}" for i in range(2)],
}
over_archs = pytest.mark.parametrize("arch", list(PLACES))


def learning(arch, **flags):
    return build(arch, task=TASK, learn_attention_alpha=True, **flags)


def n_heads(model, place):
    return getattr(model.get_submodule(place), "num_heads", 1)


@over_archs
def test_every_attention_learns(arch):
    model = learning(arch)
    found = learned_alphas(model)
    assert list(found) == PLACES[arch]
    for place, alphas in found.items():
        assert_close(alphas, torch.full((n_heads(model, place),), 1.5))
    loss = EntmaxLossCriterion(TASK, False)(model.train(), batch(TASK))[0]
    loss.backward()
    for place in PLACES[arch]:
        assert model.get_parameter(f"{place}.learned_alpha.scores").grad.any()


def test_each_place_starts_where_its_flag_says():
    model = learning("transformer_entmax_tiny", attention_alpha=1.3, cross_attention_alpha=1.8)
    for place, alphas in learned_alphas(model).items():
        assert_close(alphas, torch.full_like(alphas, 1.8 if "encoder_attn" in place else 1.3))


@over_archs
def test_without_the_flag_nothing_is_added(arch):
    assert not learned_alphas(build(arch, task=TASK))
    names = build(arch, task=TASK).state_dict().keys()
    added = learning(arch).state_dict().keys() - names
    assert added == {f"{place}.learned_alpha.scores" for place in PLACES[arch]}


@over_archs
def test_saved_with_the_model(arch):
    model = learning(arch).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    EntmaxLossCriterion(TASK, False)(model, batch(TASK))[0].backward()
    optimizer.step()
    twin = learning(arch)
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    for place, alphas in learned_alphas(model).items():
        assert (alphas != 1.5).any()
        assert torch.equal(learned_alphas(twin)[place], alphas)


@over_archs
def test_a_fixed_checkpoint_can_be_tuned(arch):
    """As ``--finetune-from-model`` does: strictly."""
    fixed = build(arch, task=TASK, seed=4)
    model = learning(arch)
    model.load_state_dict(copy.deepcopy(fixed.state_dict()), strict=True)
    net_input = batch(TASK)["net_input"]
    assert_close(model(**net_input)[0], fixed(**net_input)[0], atol=1e-5, rtol=1e-4)


@over_archs
@pytest.mark.parametrize("alpha", [1.0, 2.0, 2.5])
def test_a_start_outside_is_refused(arch, alpha):
    with pytest.raises(ValueError, match=f"--learn-attention-alpha.*got {alpha}"):
        learning(arch, cross_attention_alpha=alpha)


@over_archs
def test_validation_logs_every_head(arch):
    model, criterion = learning(arch), EntmaxLossCriterion(TASK, False)
    with torch.no_grad():
        for place in PLACES[arch]:
            scores = model.get_parameter(f"{place}.learned_alpha.scores")
            scores.copy_(torch.linspace(-1, 1, len(scores)))
    logs = [criterion(model, batch(TASK, lengths))[2] for lengths in ((3, 4), (5,))]
    with metrics.aggregate(new_root=True) as aggregated:
        EntmaxLossCriterion.reduce_metrics(logs)
    logged = aggregated.get_smoothed_values()
    for place in PLACES[arch]:
        scores = model.get_parameter(f"{place}.learned_alpha.scores")
        for head, score in enumerate(scores.tolist()):
            expected = 1 + 1 / (1 + math.exp(-score))
            assert logged[f"alpha.{place}.{head}"] == pytest.approx(expected, abs=1e-4)
    trained = criterion(model.train(), batch(TASK))[2]
    assert not any(name.startswith("alpha.") for name in trained)


@over_archs
def test_flag_on_the_command_line(arch):
    given = ["data", "--arch", arch, "--criterion", "entmax_loss"]
    for flags, expected in (([], False), (["--learn-attention-alpha"], True)):
        parser = options.get_training_parser("translation")
        args = options.parse_args_and_arch(parser, [*given, *flags])
        assert args.learn_attention_alpha == expected
