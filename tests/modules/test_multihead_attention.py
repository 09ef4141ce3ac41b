"""fairseq's multi-head attention with entmax: the weights are the oracle's, the rest is stock."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from fairseq_entmax.modules import EntmaxMultiheadAttention

from .attention_by_hand import (
    BSZ,
    HEAD_DIM,
    HEADS,
    SRC_LEN,
    TGT_LEN,
    assert_same_zeros,
    inputs,
    output_by_hand,
    over_alphas,
    over_kinds,
    projected,
    scores_by_hand,
    sparse_attention,
    stock_attention,
    weights_by_hand,
)

PADDED = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]]).bool()


# ---- from_stock


@over_kinds
def test_state_dict_is_stock(kind):
    stock = stock_attention(kind)
    sparse = EntmaxMultiheadAttention.from_stock(stock, 1.5)
    assert list(sparse.state_dict()) == list(stock.state_dict())
    assert all(a is b for a, b in zip(sparse.parameters(), stock.parameters()))


@over_kinds
def test_alpha_one_is_the_stock_object(kind):
    stock = stock_attention(kind)
    given = inputs(kind)
    expected = stock(**given)
    twin = EntmaxMultiheadAttention.from_stock(stock, 1.0)
    assert twin is stock
    for got, wanted in zip(twin(**given), expected):
        assert torch.equal(got, wanted)


def test_stock_attention_stays_softmax():
    stock = stock_attention("encoder-self")
    given = inputs("encoder-self")
    before = stock(**given)[1]
    EntmaxMultiheadAttention.from_stock(stock, 2.0)
    assert torch.equal(stock(**given)[1], before)


def test_alpha_of_a_sparse_attention_can_change():
    sparse = sparse_attention("encoder-self", 2.0)
    given = inputs("encoder-self")
    for alpha in (1.5, 1.0):
        changed = EntmaxMultiheadAttention.from_stock(sparse, alpha)
        weights = changed(**given, need_head_weights=True)[1]
        assert_close(weights.double(), weights_by_hand(sparse, alpha, **given), atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [0.99, 0.0, -1.0, math.nan])
def test_alpha_below_one_is_refused(alpha):
    with pytest.raises(ValueError, match=f"must be >= 1, got {alpha}"):
        EntmaxMultiheadAttention.from_stock(stock_attention("cross"), alpha)


@over_alphas
@over_kinds
def test_temperature_divides_the_scores(kind, alpha):
    stock, given = stock_attention(kind), inputs(kind)
    expected = reference.entmax(scores_by_hand(stock, **given) / 3, alpha).transpose(0, 1)
    sparse = EntmaxMultiheadAttention.from_stock(stock, alpha, temperature=3.0)
    weights = sparse(**given, need_head_weights=True)[1]
    assert_close(weights.double(), expected, atol=1e-6, rtol=0)
    again = EntmaxMultiheadAttention.from_stock(sparse, alpha)  # at 1, not at 3 once more
    weights = again(**given, need_head_weights=True)[1]
    assert_close(weights.double(), weights_by_hand(stock, alpha, **given), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature must be a number > 0, got {temperature}"):
        EntmaxMultiheadAttention.from_stock(stock_attention("cross"), 1.5, temperature=temperature)


def test_xformers_is_refused():
    attention = stock_attention("encoder-self")
    attention.use_xformers = True
    with pytest.raises(ValueError, match="xFormers has only softmax"):
        EntmaxMultiheadAttention.from_stock(attention, 1.5)


def test_xformers_is_kept_at_alpha_one():
    attention = stock_attention("encoder-self")
    attention.use_xformers = True
    assert EntmaxMultiheadAttention.from_stock(attention, 1.0) is attention


# ---- weights and output


@over_alphas
@over_kinds
def test_weights_are_the_oracles(kind, alpha):
    attention = sparse_attention(kind, alpha)
    given = inputs(kind)
    _, weights = attention(**given, need_head_weights=True)
    expected = weights_by_hand(attention, alpha, **given)
    assert_close(weights.double(), expected, atol=2e-6, rtol=0)
    assert_same_zeros(weights, expected)


@over_alphas
@over_kinds
def test_output_is_the_weighted_sum(kind, alpha):
    attention = sparse_attention(kind, alpha)
    given = inputs(kind)
    output, _ = attention(**given)
    weights = weights_by_hand(attention, alpha, **given)
    assert_close(output, output_by_hand(attention, weights, given["value"]), atol=1e-5, rtol=1e-5)


@over_kinds
def test_zeros_are_exact_in_training(kind):
    # stock's training path is torch's fused attention, which only knows softmax
    attention = sparse_attention(kind, dropout=0.3).train()
    given = inputs(kind)
    _, weights = attention(**given, need_head_weights=True)
    assert_same_zeros(weights, weights_by_hand(attention, 1.5, **given))


def test_need_weights_is_the_mean_over_heads():
    attention = sparse_attention("cross")
    given = inputs("cross")
    _, by_head = attention(**given, need_head_weights=True)
    _, weights = attention(**given)
    assert by_head.shape == (HEADS, BSZ, TGT_LEN, SRC_LEN)
    assert weights.shape == (BSZ, TGT_LEN, SRC_LEN)
    assert_close(weights, by_head.mean(0))
    assert attention(**given, need_weights=False)[1] is None
    # as in stock, the weights of the heads are given even if no weights were asked for
    assert attention(**given, need_weights=False, need_head_weights=True)[1] is not None


def test_before_softmax_gives_scores_and_values():
    attention = sparse_attention("cross")
    given = inputs("cross")
    scores, values = attention(**given, before_softmax=True)
    assert_close(scores, scores_by_hand(attention, **given).flatten(0, 1))
    assert_close(values, projected(attention.v_proj, given["value"]).flatten(0, 1))


def test_dropout_only_in_training():
    attention = sparse_attention("encoder-self", dropout=0.5)
    given = inputs("encoder-self")
    undropped = attention(**given)[0]
    assert torch.equal(undropped, attention(**given)[0])
    attention.train()
    torch.manual_seed(0)
    dropped, weights = attention(**given, need_head_weights=True)
    assert not torch.allclose(dropped, undropped)
    # the returned weights are those before dropout
    expected = weights_by_hand(attention, 1.5, **given)
    assert_close(weights.double(), expected, atol=2e-6, rtol=0)
    torch.manual_seed(0)
    kept = attention.dropout_module(weights.transpose(0, 1).contiguous()).transpose(0, 1)
    assert_close(dropped, output_by_hand(attention, kept, given["value"]))


# ---- masks


@over_alphas
def test_padding_has_no_weight(alpha):
    attention = sparse_attention("encoder-self", alpha)
    given = inputs("encoder-self")
    output, weights = attention(**given, key_padding_mask=PADDED, need_head_weights=True)
    expected = weights_by_hand(attention, alpha, padding=PADDED, **given)
    assert_close(weights.double(), expected, atol=2e-6, rtol=0)
    assert weights.masked_select(PADDED[None, :, None, :]).eq(0).all()
    assert_close(output, output_by_hand(attention, expected, given["value"]), atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing_else():
    attention = sparse_attention("encoder-self")
    given = inputs("encoder-self")
    output, _ = attention(**given, key_padding_mask=PADDED)
    short = given["query"][:2, 2:]  # the last sentence without its padding
    alone, _ = attention(short, short, short)
    assert_close(output[:2, 2:], alone)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_fully_masked_row_gives_no_nan(mode):
    attention = sparse_attention("encoder-self").train(mode == "train")
    given = inputs("encoder-self")
    padding = PADDED.clone()
    padding[1] = True
    given["query"].requires_grad_()
    output, weights = attention(**given, key_padding_mask=padding)
    assert weights[1].eq(0).all()
    assert_close(output[:, 1], attention.out_proj.bias.expand(TGT_LEN, -1))
    output.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in attention.parameters())
    assert given["query"].grad.isfinite().all()


def test_add_zero_attn_appends_a_key_of_score_zero():
    attention = sparse_attention("encoder-self", add_zero_attn=True)
    given = inputs("encoder-self")
    output, weights = attention(**given, key_padding_mask=PADDED, need_head_weights=True)
    scores = scores_by_hand(attention, padding=PADDED, **given)
    with_zero = torch.cat([scores, torch.zeros_like(scores[..., :1])], dim=-1)
    expected = reference.entmax(with_zero, 1.5).transpose(0, 1)
    assert_close(weights.double(), expected, atol=2e-6, rtol=0)
    # the appended value is zero
    without = output_by_hand(attention, expected[..., :-1], given["value"])
    assert_close(output, without, atol=1e-5, rtol=1e-5)


def test_add_bias_kv_is_refused():
    # fairseq's general attention forgets to count the appended key and asserts without a word
    with pytest.raises(ValueError, match="add_bias_kv"):
        sparse_attention("encoder-self", add_bias_kv=True)


# ---- types, gradients


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@over_kinds
def test_half_precision(kind, dtype):
    attention = sparse_attention(kind).to(dtype)
    given = inputs(kind, dtype=dtype)
    output, weights = attention(**given, need_head_weights=True)
    assert output.dtype == weights.dtype == dtype
    # the scores themselves are rounded to 16 bits: compare from there on
    scores, values = attention(**given, before_softmax=True)
    expected = reference.entmax(scores, 1.5).view(BSZ, HEADS, TGT_LEN, -1).transpose(0, 1)
    accuracy = torch.finfo(dtype).eps
    assert_close(weights.double(), expected, atol=accuracy, rtol=0)
    assert_same_zeros(weights, expected)
    sums = torch.bmm(weights.transpose(0, 1).flatten(0, 1).float(), values.float())
    joined = sums.view(BSZ, HEADS, TGT_LEN, HEAD_DIM).permute(2, 0, 1, 3).flatten(2)
    by_hand = joined @ attention.out_proj.weight.float().t() + attention.out_proj.bias.float()
    assert_close(output.float(), by_hand, atol=20 * accuracy, rtol=20 * accuracy)


@over_alphas
@over_kinds
def test_gradient(kind, alpha):
    attention = sparse_attention(kind, alpha).double().train()
    given = inputs(kind, bsz=1, dtype=torch.float64)
    mask = given.get("attn_mask")
    if kind == "cross":
        leaves = (given["query"].requires_grad_(), given["key"].requires_grad_())
        assert torch.autograd.gradcheck(lambda q, s: attention(q, s, s)[0], leaves)
    else:
        leaf = given["query"].requires_grad_()
        assert torch.autograd.gradcheck(lambda x: attention(x, x, x, attn_mask=mask)[0], leaf)


@over_kinds
def test_every_parameter_learns(kind):
    attention = sparse_attention(kind, dropout=0.1).train()
    attention(**inputs(kind))[0].square().sum().backward()
    for name, parameter in attention.named_parameters():
        # adding to all keys moves no score apart from another
        if name != "k_proj.bias":
            assert parameter.grad.abs().sum() > 0, name
