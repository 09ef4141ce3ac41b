"""The transformer: every alpha in its place, under all of fairseq's options."""

import pytest
import torch
from fairseq import options
from fairseq.models import build_model
from fairseq.models.transformer import transformer_decoder, transformer_encoder
from fairseq.modules import MultiheadAttention
from torch import nn
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, entmax_loss
from fairseq_entmax.modules import EntmaxMultiheadAttention
from fairseq_entmax.modules.multihead_attention import default_temperature
from tests.builders import Task, batch, build, sharpen

ARCH, STOCK = "transformer_entmax_tiny", "transformer_tiny"
OPTIONS = {
    "default": {},
    "normalize_before": {"encoder_normalize_before": True, "decoder_normalize_before": True},
    "no_cross_attention": {"no_cross_attention": True},
    "cross_self_attention": {"no_cross_attention": True, "cross_self_attention": True},
    "learned_pos": {"encoder_learned_pos": True, "decoder_learned_pos": True},
    "layernorm_embedding": {"layernorm_embedding": True},
    "scaled": {"scale_attn": True, "scale_heads": True, "scale_fc": True, "scale_resids": True},
    "quant_noise": {"quant_noise_pq": 0.1, "quant_noise_pq_block_size": 4},
    "layerdrop": {"encoder_layerdrop": 0.2, "decoder_layerdrop": 0.2},
    "layers_to_keep": {"encoder_layers_to_keep": "0", "decoder_layers_to_keep": "1"},
    "merged embeddings": {"merge_src_tgt_embed": True},
    "checkpoint_activations": {"checkpoint_activations": True},
    "unequal sizes": {"decoder_embed_dim": 12, "decoder_output_dim": 8},
}
over_options = pytest.mark.parametrize("flags", OPTIONS.values(), ids=OPTIONS)


def alphas(model):
    """The alphas in force in each place, in the order of the layers; 1 is stock's attention."""

    def alpha(attention):
        assert isinstance(attention, MultiheadAttention)
        return attention.alpha if isinstance(attention, EntmaxMultiheadAttention) else 1.0

    return {
        "encoder": [alpha(layer.self_attn) for layer in model.encoder.layers],
        "decoder": [alpha(layer.self_attn) for layer in model.decoder.layers],
        "cross": [alpha(layer.encoder_attn) for layer in model.decoder.layers],
    }


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, (1.5, 1.5, 1.5)),
        ({"attention_alpha": 2.0}, (2.0, 2.0, 2.0)),
        ({"attention_alpha": 1.0}, (1.0, 1.0, 1.0)),
        ({"encoder_attention_alpha": 1.25}, (1.25, 1.5, 1.5)),
        ({"decoder_attention_alpha": 1.25}, (1.5, 1.25, 1.5)),
        ({"cross_attention_alpha": 1.0}, (1.5, 1.5, 1.0)),
        ({"attention_alpha": 1.0, "encoder_attention_alpha": 2.0}, (2.0, 1.0, 1.0)),
        ({"attention_alpha": 1.0, "decoder_attention_alpha": 2.0}, (1.0, 2.0, 1.0)),
        ({"attention_alpha": 1.0, "cross_attention_alpha": 2.0}, (1.0, 1.0, 2.0)),
    ],
    ids=lambda value: (
        " ".join(f"{k}={v}" for k, v in value.items()) or "default"
        if isinstance(value, dict)
        else ""
    ),
)
def test_each_alpha_in_its_place(flags, expected):
    found = alphas(build(ARCH, **flags))
    assert found == {
        place: [alpha] * 2 for place, alpha in zip(("encoder", "decoder", "cross"), expected)
    }


def temperatures(model):
    found = [m for m in model.modules() if isinstance(m, MultiheadAttention)]
    return [round(m.head_dim**-0.5 / m.scaling, 9) for m in found]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, [2.0] * 6),
        ({"attention_alpha": 2.0, "encoder_attention_alpha": 1.0}, [1.0] * 2 + [4.0] * 4),
        ({"attention_temperature": 3.0, "cross_attention_alpha": 1.0}, [3.0] * 3 + [1.0, 3.0, 1.0]),
        ({"attention_temperature": 1.0, "learn_attention_alpha": True}, [1.0] * 6),
    ],
    ids=["default", "by place", "given", "one"],
)
def test_temperature_of_each_attention(flags, expected):
    assert temperatures(build(ARCH, **flags)) == expected


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
def test_default_temperature_is_as_steep_as_softmax_over_four_positions(alpha):
    z = torch.zeros(4, dtype=torch.float64)
    temperature = default_temperature(alpha)
    jacobian = torch.autograd.functional.jacobian(lambda z: entmax(z / temperature, alpha), z)
    assert_close(jacobian, torch.autograd.functional.jacobian(lambda z: z.softmax(0), z))


@pytest.mark.parametrize("temperature", [0.0, -2.0, float("inf"), float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=f"--attention-temperature .*> 0, got {temperature}"):
        build(ARCH, attention_temperature=temperature)


@pytest.mark.parametrize(("flags", "expected"), [([], 2.0), (["--attention-temperature", "5"], 5)])
def test_temperature_on_the_command_line(flags, expected):
    given = ["data", "--arch", ARCH, "--criterion", "entmax_loss", *flags]
    args = options.parse_args_and_arch(options.get_training_parser("translation"), given)
    assert temperatures(build_model(args, Task())) == [expected] * 6


def test_cross_attention_of_the_output_is_sparse():
    model = sharpen(build(ARCH, attention_alpha=1.0, cross_attention_alpha=2.0))
    weights = model(**batch()["net_input"])[1]["attn"][0]
    softmax = sharpen(build(ARCH, attention_alpha=1.0))(**batch()["net_input"])[1]["attn"][0]
    assert (weights == 0).sum() > (softmax == 0).sum()
    assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))


@over_options
def test_alphas_of_one_are_stock_under_every_option(flags):
    ours = build(ARCH, output_alpha=1.0, attention_alpha=1.0, **flags)
    stock = build(STOCK, **flags)
    inputs = batch()["net_input"]
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert torch.equal(ours(**inputs)[0], stock(**inputs)[0])
    for model in (ours, stock):
        model.train()
        torch.manual_seed(4)
        model(**inputs)[0].square().sum().backward()
    for (name, p), expected in zip(ours.named_parameters(), stock.parameters()):
        assert (p.grad is None) == (expected.grad is None), name
        assert p.grad is None or torch.equal(p.grad, expected.grad), name


@over_options
def test_sparse_attention_under_every_option(flags):
    model, stock = sharpen(build(ARCH, **flags)), sharpen(build(STOCK, **flags))
    inputs = batch()["net_input"]
    scores = model(**inputs)[0]
    assert scores.isfinite().all()
    assert not torch.allclose(scores, stock(**inputs)[0], atol=1e-3)
    found = [m for m in model.modules() if isinstance(m, MultiheadAttention)]
    assert found
    assert all(isinstance(m, EntmaxMultiheadAttention) for m in found)


def test_adaptive_softmax_is_refused():
    with pytest.raises(
        ValueError, match=r"--adaptive-softmax-cutoff 8,16,24\) .*--output-alpha 1.5"
    ):
        build(ARCH, adaptive_softmax_cutoff="8,16")


def test_adaptive_softmax_stays_at_output_alpha_one():
    flags = {"adaptive_softmax_cutoff": "8,16", "criterion": "adaptive_loss"}
    model, stock = (
        build(ARCH, output_alpha=1.0, attention_alpha=1.0, **flags),
        build(STOCK, **flags),
    )
    sample = batch()
    log_probs = [
        m.get_normalized_probs(m(**sample["net_input"]), True, sample) for m in (model, stock)
    ]
    assert torch.equal(*log_probs)


def gradients(model, sample):
    model.train()
    torch.manual_seed(6)  # of dropout
    scores, _ = model(**sample["net_input"])
    loss = entmax_loss(scores, sample["target"], ignore_index=model.decoder.padding_idx)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("option", ["checkpoint_activations", "offload_activations"])
def test_activation_checkpointing_gives_the_same_gradients(option):
    flags = {"dropout": 0.1, "attention_dropout": 0.1}
    plain = gradients(build(ARCH, **flags), batch())
    model = build(ARCH, **{option: True}, **flags)
    assert all(hasattr(layer, "precheckpoint_forward") for layer in model.encoder.layers)
    checkpointed = gradients(model, batch())
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert_close(checkpointed[name], gradient, msg=name)


class Sharded(nn.Module):
    """Stands for fairscale's wrapper: reads go to the layer inside, writes stay outside."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


def test_attention_is_sparse_under_sharding_wrappers(monkeypatch):
    expected = sharpen(build(ARCH))(**batch()["net_input"])[0]
    for module in (transformer_encoder, transformer_decoder):
        monkeypatch.setattr(module, "fsdp_wrap", lambda layer, **_: Sharded(layer))
    model = sharpen(build(ARCH))
    assert isinstance(model.encoder.layers[0], Sharded)
    assert_close(model(**batch()["net_input"])[0], expected)
    assert sum(isinstance(m, MultiheadAttention) for m in model.modules()) == 6


def test_beams_share_the_encoder():
    # fairseq's generator tells the decoder the width of its beam
    model = sharpen(build(ARCH))
    inputs = batch()["net_input"]
    beams = torch.arange(3).repeat_interleave(2)
    prev = torch.randint(4, 20, (6, 4))
    with torch.no_grad():
        out = model.encoder(inputs["src_tokens"], src_lengths=inputs["src_lengths"])
        out = model.encoder.reorder_encoder_out(out, beams)
        expected, _ = model.decoder(prev, encoder_out=out)
        model.decoder.set_beam_size(2)
        state = {}
        for t in range(4):
            step, _ = model.decoder(prev[:, : t + 1], encoder_out=out, incremental_state=state)
            assert_close(step[:, 0], expected[:, t], atol=1e-4, rtol=1e-4)
    assert 3 in {saved["prev_key"].size(0) for saved in state.values()}


def test_hub_offers_no_softmax_models():
    assert type(build(ARCH)).hub_models() == {}


def last_norm(model):
    decoder = model.decoder
    return decoder.layer_norm or decoder.layers[-1].final_layer_norm


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
def test_a_sparse_output_starts_with_features_of_norm_one(before):
    flags = {"decoder_normalize_before": before}
    model, softmax = build(ARCH, **flags), build(ARCH, output_alpha=1.0, **flags)
    features = model(**batch()["net_input"], features_only=True)[0]
    assert_close(features.norm(dim=-1), torch.ones(features.shape[:2]), atol=1e-3, rtol=0)
    assert_close(last_norm(softmax).weight, torch.ones(softmax.decoder.embed_dim))


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
def test_more_words_are_possible_at_the_start(alpha):
    """The stock gain leaves most words without a gradient that are no answers."""
    model = build(ARCH, task=Task(2000), output_alpha=alpha, decoder_normalize_before=True)

    def support():
        out = model(**batch()["net_input"])
        return (model.get_normalized_probs(out, log_probs=False) > 0).float().sum(-1).mean()

    small = support()
    with torch.no_grad():
        last_norm(model).weight.fill_(1)
    assert small > 2 * support()


def test_a_loaded_model_keeps_its_gain():
    stock, model = build(STOCK), build(ARCH)
    model.load_state_dict(stock.state_dict())
    assert_close(last_norm(model).weight, last_norm(stock).weight)
