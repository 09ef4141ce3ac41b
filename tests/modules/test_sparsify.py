"""sparsify: any built fairseq model becomes sparse in place."""

import copy
import math
import pickle

import pytest
import torch
from fairseq.models.fconv import AttentionLayer
from fairseq.models.lstm import AttentionLayer as LSTMAttention
from fairseq.models.speech_to_text.berard import MLPAttention
from fairseq.modules import MultiheadAttention
from fairseq.modules.downsampled_multihead_attention import SingleHeadAttention
from fairseq.modules.espnet_multihead_attention import ESPNETMultiHeadedAttention
from fairseq.modules.sparse_multihead_attention import SparseMultiheadAttention
from torch import nn
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from fairseq_entmax.modules import (
    EntmaxLuongAttention,
    EntmaxMultiheadAttention,
    EntmaxOutputMixin,
    output_alpha_of,
    sparsify,
)
from fairseq_entmax.modules.attentions import SparseAttention, sparse_twin_of
from tests.builders import batch, build
from tests.modules.test_output import fconv_model

ALPHAS = [1.25, 1.5, 2.0]


def attentions(model):
    return [m for m in model.modules() if isinstance(m, MultiheadAttention)]


def probs_of(model):
    with torch.no_grad():
        return model.get_normalized_probs(model(**batch()["net_input"]), log_probs=False)


# ---- whole models


@pytest.mark.parametrize("name", ["transformer_tiny", "lstm", "fconv"])
def test_all_alphas_one_are_the_stock_model(name):
    model = fconv_model() if name == "fconv" else build(name)
    before = probs_of(model)
    assert sparsify(model, 1.0, 1.0) is model
    assert torch.equal(probs_of(model), before)


@pytest.mark.parametrize("name", ["transformer_tiny", "lstm", "fconv"])
def test_a_sparse_model_keeps_its_parameters_and_can_be_copied(name):
    model = fconv_model() if name == "fconv" else build(name)
    parameters = dict(model.named_parameters())
    model = sparsify(model, 2.0, 2.0)
    assert {n: id(p) for n, p in model.named_parameters()} == {
        n: id(p) for n, p in parameters.items()
    }
    assert isinstance(model.decoder, EntmaxOutputMixin) and output_alpha_of(model) == 2.0
    copies = [pickle.loads(pickle.dumps(model))]
    if name != "fconv":  # torch does not copy weight_norm's tensors
        copies.append(copy.deepcopy(model))
    for other in copies:
        assert type(other.decoder) is type(model.decoder)
        assert torch.equal(probs_of(other), probs_of(model))


def test_places_have_their_alphas():
    model = sparsify(build("transformer_tiny"), None, 1.5, encoder_attention_alpha=2.0)
    assert [m.alpha for m in attentions(model.encoder)] == [2.0] * 2
    assert [m.alpha for m in attentions(model.decoder)] == [1.5] * 4
    assert output_alpha_of(model) is None
    again = sparsify(model, 1.25, 1.75, cross_attention_alpha=1.0, attention_temperature=3.0)
    assert [m.alpha for m in attentions(again.decoder)] == [1.75, 1.0] * 2
    assert output_alpha_of(again) == 1.25


def test_attention_alone_shares_names_and_turns_the_fused_layer_off():
    model = build("transformer_tiny")
    names, scalings = list(model.state_dict()), [m.scaling for m in attentions(model)]
    # fairseq 0.12.2's encoder layer has a softmax of its own for evaluation
    model.encoder.layers[0].can_use_fastpath = True
    sparsify(model, None, 1.5)
    assert all(type(m) is EntmaxMultiheadAttention for m in attentions(model))
    assert [m.scaling for m in attentions(model)] == [s / 2 for s in scalings]
    assert list(model.state_dict()) == names
    assert not model.encoder.layers[0].can_use_fastpath


def test_untrained_outputs_start_near_zero_and_trained_ones_stay():
    for untrained in (False, True):
        model = sparsify(build("transformer_tiny"), 1.5, 1.0, untrained=untrained)
        gain = model.decoder.layers[-1].final_layer_norm.weight
        expected = gain.numel() ** -0.5 if untrained else 1.0
        assert_close(gain.detach(), torch.full_like(gain, expected))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("lstm", {"encoder_attention_alpha": 1.5}, "no encoder attention.*it has cross"),
        ("lstm", {"attention_temperature": 2.0}, "no use for attention_temperature, got 2.0"),
        ("transformer_tiny", {"attention_score": "mlp"}, "no use for attention_score, got 'mlp'"),
        ("transformer_tiny", {"attention_alpha": 0.9}, "attention-alpha.*>= 1.*got 0.9"),
        ("transformer_tiny", {"attention_alpha": math.nan}, "attention-alpha.*>= 1.*got nan"),
        ("transformer_tiny", {"output_alpha": 0.5}, "output-alpha must be >= 1.*got 0.5"),
        ("transformer_tiny", {"attention_temperature": 0.0}, "temperature.*> 0, got 0.0"),
        ("transformer_tiny", {"learn_attention_alpha": True, "attention_alpha": 2.0}, "got 2.0"),
        ("fconv", {"learn_attention_alpha": True}, "AttentionLayer cannot learn its alpha"),
    ],
)
def test_what_cannot_be_is_said(name, options, said):
    model = fconv_model() if name == "fconv" else build(name)
    with pytest.raises(ValueError, match=said):
        sparsify(model, **options)


def test_a_model_without_words_or_attention_is_said():
    with pytest.raises(ValueError, match=r"Linear has no attention.*attention alpha to 1"):
        sparsify(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"Linear has no output layer.*output_alpha=None"):
        sparsify(nn.Linear(2, 2), attention_alpha=1.0)


# ---- one attention of each kind, against softmax's own inputs


def fixed(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def _espnet():
    attention = ESPNETMultiHeadedAttention(8, 2, 0.0).eval()
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    x = 4 * fixed(5, 2, 8)
    attention(x, x, x, key_padding_mask=mask)
    return attention, lambda: (attention(x, x, x, key_padding_mask=mask), attention.attn)[1], -1


def _fconv():
    attention = AttentionLayer(8, 8).eval()
    x, y, keys = 4 * fixed(2, 3, 8), fixed(2, 3, 8), (4 * fixed(2, 8, 5), fixed(2, 5, 8))
    return attention, lambda: attention(x, y, keys, None)[1], -1


def _berard():
    attention = MLPAttention(8, 6, 7).eval()
    with torch.no_grad():
        attention.to_scores.weight.mul_(20)
    mask = torch.tensor([[False, False]] * 4 + [[False, True]])
    state, source = 3 * fixed(2, 8), 3 * fixed(5, 2, 6)
    return attention, lambda: attention(state, source, mask)[1], 0


def _single_head():
    attention = SingleHeadAttention(8, 8, 4, 0, num_heads=2).eval()
    x = 4 * fixed(5, 2, 8)
    return attention, lambda: attention(x, x, x)[1], -1


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("make", [_espnet, _fconv, _berard, _single_head])
def test_attentions_without_a_door_are_the_oracles(make, alpha):
    torch.manual_seed(2)
    attention, weights, dim = make()
    softmax = weights().detach()
    assert sparse_twin_of(attention, SparseAttention(alpha, temperature=2.0)) is attention
    # log p is the scores up to a constant for each row
    scores = softmax.double().log().transpose(dim, -1) / 2.0
    expected = reference.entmax(scores, alpha).transpose(dim, -1)
    assert_close(weights().detach().double(), expected, atol=1e-5, rtol=0)
    assert (expected == 0).any() and torch.equal(weights() == 0, expected == 0)
    assert sparse_twin_of(attention, SparseAttention(1.0)) is attention
    assert torch.equal(weights(), softmax)


def test_torchscript_does_not_compile_softmax_instead():
    attention, _, _ = _berard()
    twin = sparse_twin_of(attention, SparseAttention(2.0))
    scripted = torch.jit.script(twin)
    arguments = (3 * fixed(2, 8), 3 * fixed(5, 2, 6), None)
    assert torch.equal(scripted(*arguments)[1], twin(*arguments)[1])
    assert (scripted(*arguments)[1] == 0).any()


def test_lstm_attention_keeps_its_projections():
    stock = LSTMAttention(8, 8, 6)
    twin = EntmaxLuongAttention.from_stock(stock, 1.5)
    assert twin.input_proj is stock.input_proj and twin.output_proj is stock.output_proj
    mlp = EntmaxLuongAttention.from_stock(stock, 1.5, "mlp")
    again = EntmaxLuongAttention.from_stock(mlp, 2.0)
    assert again.score == "mlp" and again.source_proj is mlp.source_proj
    dot = EntmaxLuongAttention.from_stock(stock, 1.0, "dot")
    assert EntmaxLuongAttention.from_stock(dot, 1.0) is dot
    assert EntmaxLuongAttention.from_stock(dot, 2.0).score == "dot"


def test_an_attention_with_a_softmax_of_its_own_is_refused():
    attention = SparseMultiheadAttention(8, 2, stride=2, expressivity=1)
    with pytest.raises(ValueError, match=r"SparseMultiheadAttention has a softmax of its own"):
        sparse_twin_of(attention, SparseAttention(1.5))
