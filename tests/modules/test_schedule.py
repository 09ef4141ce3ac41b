"""Alphas that move with the updates: where they are, what a checkpoint keeps, what is refused."""

import copy

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from fairseq_entmax.modules import EntmaxMultiheadAttention, schedule_alphas, sparsify
from fairseq_entmax.modules.schedule import Ramp, read_alpha_ramp, read_share
from tests.builders import batch, build, scripted, sharpen
from tests.modules.test_output import fconv_model

ARCHS = ["transformer_entmax_tiny", "lstm_entmax"]
SCHEDULES = {
    "output_alpha_schedule": "1:10:30",
    "attention_alpha_schedule": "1.25:0:20",
    "output_temperature": 16.0,
}


def probs_of(model):
    with torch.no_grad():
        return model.get_normalized_probs(model(**batch()["net_input"]), log_probs=False)


def scheduled(arch=ARCHS[0], **flags):
    return sharpen(build(arch, **{**SCHEDULES, **flags}))


# ---- ramps


@pytest.mark.parametrize(("update", "alpha"), [(0, 1), (10, 1), (15, 1.25), (20, 1.5), (1000, 1.5)])
def test_a_line_between_two_updates(update, alpha):
    assert Ramp(1.0, 1.5, 10, 20).at(update) == alpha


def test_a_step():
    assert [Ramp(1.0, 1.5, 7, 7).at(n) for n in (0, 6, 7, 8)] == [1.0, 1.0, 1.5, 1.5]


@pytest.mark.parametrize(
    "text", ["", "1", "1:2", "1:2:3:4", "0.5:0:9", "1:9:0", "1:-1:9", "1:a:9", "nan:0:9", "inf:0:9"]
)
def test_bad_schedules_are_refused(text):
    with pytest.raises(ValueError, match=r"--flag must be FROM:BEGIN:END.*got"):
        read_alpha_ramp("--flag", text, 1.5)


@pytest.mark.parametrize("text", ["", "a", "-0.1", "1.1", "nan", "1:0", "1:0:9:0", "1:2:0:9"])
def test_bad_shares_are_refused(text):
    with pytest.raises(ValueError, match=r"--flag must be a share.*got"):
        read_share("--flag", text)


def test_shares():
    assert read_share("--flag", "0.25").at(10**6) == 0.25
    assert [read_share("--flag", "1:0:0:10").at(n) for n in (0, 5, 10)] == [1.0, 0.5, 0.0]


# ---- models


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(
    ("update", "output", "attention"), [(0, 1.0, 1.25), (20, 1.25, 1.5), (30, 1.5, 1.5)]
)
def test_a_model_is_what_its_alphas_make_it(arch, update, output, attention):
    model = scheduled(arch)
    model.set_num_updates(update)
    temperature = 16.0 ** ((output - 1) / 0.5)
    fixed = build(
        arch, output_alpha=output, attention_alpha=attention, output_temperature=temperature
    )
    sharpen(fixed)
    assert torch.equal(probs_of(model), probs_of(fixed))


def test_an_output_temperature_goes_with_its_alpha():
    model = scheduled()
    sample = batch()
    with torch.no_grad():
        for update, alpha, temperature in ((0, 1.0, 1.0), (20, 1.25, 4.0), (30, 1.5, 16.0)):
            model.set_num_updates(update)
            scores = model(**sample["net_input"])[0]
            expected = reference.entmax(scores.double() / temperature, alpha)
            assert_close(probs_of(model).double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_checkpoint_has_the_alphas_that_it_had_reached(arch):
    model = scheduled(arch)
    model.set_num_updates(20)
    loaded = scheduled(arch)
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(probs_of(loaded), probs_of(model))
    copied = copy.deepcopy(model)
    copied.set_num_updates(30)
    assert model.decoder.output_alpha == 1.25
    assert copied.decoder.output_alpha == 1.5


def test_a_checkpoint_without_schedule_begins_at_update_0():
    model = scheduled()
    model.set_num_updates(25)
    model.load_state_dict(build("transformer_tiny").state_dict())
    assert model.decoder.output_alpha == 1.0


def test_without_a_schedule_the_state_is_the_stock_model_s():
    names = build("transformer_tiny").state_dict().keys()
    assert build(ARCHS[0]).state_dict().keys() == names
    assert scheduled().state_dict().keys() - names == {"alpha_schedule.num_updates"}


def test_one_s_own_model():
    model = schedule_alphas(sparsify(build("transformer_tiny"), 2.0, 1.0), output="1.5:0:4")
    model.set_num_updates(2)
    assert model.decoder.output_alpha == 1.75
    assert not any(isinstance(m, EntmaxMultiheadAttention) for m in model.modules())


def test_a_scheduled_model_is_scripted_with_its_present_alphas():
    model = scheduled()
    model.set_num_updates(20)
    sample = batch()["net_input"]
    assert_close(scripted(model)(**sample)[0], model(**sample)[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"output_alpha": 1.0, "output_temperature": 1.0}, "the output of .* has no alpha above 1"),
        ({"attention_alpha": 1.0}, "the attention of .* has no alpha above 1"),
        ({"learn_attention_alpha": True}, "both move alpha"),
        ({"output_alpha_schedule": "1:2"}, "--output-alpha-schedule must be FROM:BEGIN:END"),
    ],
)
def test_what_cannot_move_is_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        scheduled(**flags)


def test_attention_that_keeps_its_alpha_is_refused():
    with pytest.raises(ValueError, match="AttentionLayer keeps the alpha"):
        schedule_alphas(sparsify(fconv_model(), 1.5, 1.5), attention="1:0:9")
