"""The LSTM: its attention, its options, and the decoder that replaces stock's."""

import pytest
import torch
from fairseq import options
from fairseq.models.lstm import AttentionLayer
from torch.testing import assert_close

from fairseq_entmax.modules import EntmaxLuongAttention
from tests.builders import batch, build, sharpen

ARCH, STOCK = "lstm_entmax", "lstm"
OPTIONS = {
    "default": {},
    "bidirectional": {"encoder_bidirectional": True},
    "two layers": {"encoder_layers": 2, "decoder_layers": 2},
    "unequal sizes": {"encoder_hidden_size": 10, "decoder_hidden_size": 14},
    "no attention": {"decoder_attention": "0"},
    "no extra layer": {"decoder_out_embed_dim": 12},
    "tied": {"share_all_embeddings": True},
}
over_options = pytest.mark.parametrize("flags", OPTIONS.values(), ids=OPTIONS)


@over_options
def test_alphas_of_one_are_stock_under_every_option(flags):
    ours = build(ARCH, output_alpha=1.0, attention_alpha=1.0, **flags)
    stock = build(STOCK, **flags)
    inputs = batch()["net_input"]
    assert list(ours.state_dict()) == list(stock.state_dict())
    for got, expected in zip(ours(**inputs), stock(**inputs)):
        assert (got is None and expected is None) or torch.equal(got, expected)
    for model in (ours, stock):
        model.train()(**inputs)[0].square().sum().backward()
    for (name, p), expected in zip(ours.named_parameters(), stock.parameters()):
        assert torch.equal(p.grad, expected.grad), name


@over_options
def test_names_and_fresh_parameters_are_stocks_under_every_option(flags):
    ours, stock = build(ARCH, **flags).state_dict(), build(STOCK, **flags).state_dict()
    assert list(ours) == list(stock)
    assert all(torch.equal(ours[name], stock[name]) for name in stock)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
def test_attention_is_sparse(bidirectional):
    model = sharpen(build(ARCH, encoder_bidirectional=bidirectional))
    weights = model(**batch()["net_input"])[1]
    assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    softmax = sharpen(build(STOCK, encoder_bidirectional=bidirectional))
    assert (weights == 0).sum() > (softmax(**batch()["net_input"])[1] == 0).sum()


def test_each_alpha_in_its_place():
    assert build(ARCH, attention_alpha=1.25).decoder.attention.alpha == 1.25
    both = build(ARCH, attention_alpha=1.25, cross_attention_alpha=2.0)
    assert both.decoder.attention.alpha == 2.0
    stock = build(ARCH, attention_alpha=2.0, cross_attention_alpha=1.0).decoder.attention
    assert type(stock) is AttentionLayer


@pytest.mark.parametrize("flag", ["--encoder-attention-alpha", "--decoder-attention-alpha"])
def test_flags_of_attention_it_does_not_have_are_not_offered(flag, capsys):
    parser = options.get_training_parser("translation")
    with pytest.raises(SystemExit):
        options.parse_args_and_arch(parser, ["data", "--arch", ARCH, flag, "2"])
    assert flag in capsys.readouterr().err


def test_attention_score_on_the_command_line(capsys):
    def parse(*flags):
        parser = options.get_training_parser("translation")
        return options.parse_args_and_arch(parser, ["data", "--arch", ARCH, *flags])

    assert parse().attention_score == "general"
    assert parse("--attention-score", "mlp").attention_score == "mlp"
    with pytest.raises(SystemExit):
        parse("--attention-score", "cosine")
    assert "invalid choice: 'cosine'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("score", "names"),
    [
        ("dot", {"output_proj.weight"}),
        ("general", {"input_proj.weight", "output_proj.weight"}),
        (
            "mlp",
            {"input_proj.weight", "output_proj.weight"}
            | {"source_proj.weight", "score_proj.weight"},
        ),
    ],
    ids=["dot", "general", "mlp"],
)
@pytest.mark.parametrize("alpha", [1.0, 1.5], ids=["alpha=1.0", "alpha=1.5"])
def test_attention_score(score, names, alpha):
    attention = build(ARCH, attention_score=score, attention_alpha=alpha).decoder.attention
    assert set(attention.state_dict()) == names
    if alpha == 1.5 or score != "general":
        assert isinstance(attention, EntmaxLuongAttention)
        assert (attention.score, attention.alpha) == (score, alpha)


def test_dot_with_unequal_sizes_is_refused():
    with pytest.raises(ValueError, match=r"one size, got 12 and 24: use the score 'general'"):
        build(ARCH, attention_score="dot", encoder_bidirectional=True)


def test_incremental_state_reaches_the_decoder():
    model = sharpen(build(ARCH))
    inputs = batch()["net_input"]
    state = {}
    with torch.no_grad():
        full, _ = model(**inputs)
        for t in range(3):
            inputs["prev_output_tokens"] = batch()["net_input"]["prev_output_tokens"][:, : t + 1]
            step, _ = model(**inputs, incremental_state=state)
            assert_close(step[:, 0], full[:, t], atol=1e-5, rtol=1e-5)


def test_beam_search_reorders_the_decoder():
    model = sharpen(build(ARCH))
    inputs = batch()["net_input"]
    prev = inputs["prev_output_tokens"]
    order = torch.tensor([1, 0, 1])
    with torch.no_grad():
        out = model.encoder(inputs["src_tokens"], src_lengths=inputs["src_lengths"])
        state = {}
        for t in (1, 2):
            model.decoder(prev[:, :t], encoder_out=out, incremental_state=state)
        model.decoder.reorder_incremental_state_scripting(state, order)
        reordered = model.encoder.reorder_encoder_out(out, order)
        step, _ = model.decoder(prev[order, :3], encoder_out=reordered, incremental_state=state)
        expected, _ = model.decoder(prev[order, :3], encoder_out=reordered)
    assert_close(step[:, 0], expected[:, 2], atol=1e-5, rtol=1e-5)
