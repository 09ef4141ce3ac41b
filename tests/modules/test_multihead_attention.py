"""fairseq's multi-head attention with entmax: the weights are the oracle's, the rest is stock."""

import io
import math
from typing import Dict, List, Optional

import pytest
import torch
from fairseq.modules import MultiheadAttention
from torch import Tensor, nn
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from fairseq_entmax.modules import EntmaxMultiheadAttention, sparsify_attention
from tests.builders import build

DIM, SOURCE_DIM, HEADS = 8, 6, 2
HEAD_DIM = DIM // HEADS
TGT_LEN, SRC_LEN, BSZ = 4, 5, 3
ALPHAS = [1.25, 1.5, 2.0]
ALPHA_IDS = [f"alpha={a}" for a in ALPHAS]
KINDS = ["encoder-self", "decoder-self", "cross"]
PADDED = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]]).bool()

over_alphas = pytest.mark.parametrize("alpha", ALPHAS, ids=ALPHA_IDS)
over_kinds = pytest.mark.parametrize("kind", KINDS)


def stock_attention(kind, **options):
    role = (
        {"encoder_decoder_attention": True, "kdim": SOURCE_DIM, "vdim": SOURCE_DIM}
        if kind == "cross"
        else {"self_attention": True}
    )
    attention = MultiheadAttention(DIM, HEADS, **role, **options)
    with torch.no_grad():
        for name, parameter in attention.named_parameters():
            if name.endswith("bias"):  # zeros at first: they would hide a forgotten bias
                parameter.normal_(std=0.3)
    return attention.eval()


def sparse_attention(kind, alpha=1.5, **options):
    return EntmaxMultiheadAttention.from_stock(stock_attention(kind, **options), alpha)


def inputs(kind, bsz=BSZ, dtype=torch.float32):
    """query, key, value and attn_mask as fairseq's layers pass them; the scores lie far apart."""
    query = 3 * torch.randn(TGT_LEN, bsz, DIM, dtype=dtype)
    if kind == "cross":
        source = 3 * torch.randn(SRC_LEN, bsz, SOURCE_DIM, dtype=dtype)
        return {"query": query, "key": source, "value": source}
    causal = torch.full((TGT_LEN, TGT_LEN), -math.inf, dtype=dtype).triu(1)
    mask = causal if kind == "decoder-self" else None
    return {"query": query, "key": query, "value": query, "attn_mask": mask}


def projected(linear, x):
    """x (len, bsz, dim) through a layer and split into heads: (bsz, heads, len, head_dim)."""
    y = x @ linear.weight.t() + linear.bias
    return y.unflatten(-1, (HEADS, HEAD_DIM)).permute(1, 2, 0, 3)


def scores_by_hand(attention, query, key, attn_mask=None, padding=None, **_):
    """q k^T / sqrt(d), (bsz, heads, tgt_len, src_len)."""
    q, k = projected(attention.q_proj, query), projected(attention.k_proj, key)
    scores = q @ k.transpose(2, 3) / math.sqrt(HEAD_DIM)
    if attn_mask is not None:
        scores = scores + attn_mask
    if padding is not None:
        scores = scores.masked_fill(padding[:, None, None, :], -math.inf)
    return scores


def weights_by_hand(attention, alpha, **given):
    """(heads, bsz, tgt_len, src_len), in float64."""
    return reference.entmax(scores_by_hand(attention, **given), alpha).transpose(0, 1)


def output_by_hand(attention, weights, value):
    """out_proj of the weighted sums; weights (heads, bsz, tgt_len, src_len)."""
    v = projected(attention.v_proj, value)
    sums = weights.transpose(0, 1).to(v.dtype) @ v
    joined = sums.permute(2, 0, 1, 3).flatten(2)
    return joined @ attention.out_proj.weight.t() + attention.out_proj.bias


def assert_same_zeros(weights, expected):
    assert (expected == 0).any(), "the scores are too close for the test to mean anything"
    assert torch.equal(weights == 0, expected == 0)


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


# ---- incremental decoding


def run_incrementally(attention, x, steps, state):
    """Outputs and head weights of single steps, as a decoder layer asks for them."""
    outputs, weights = [], []
    for t in steps:
        step = x[t : t + 1]
        output, weight = attention(
            step, step, step, incremental_state=state, need_head_weights=True
        )
        outputs.append(output)
        weights.append(weight)
    return torch.cat(outputs), weights


@over_alphas
def test_self_attention_step_by_step(alpha):
    attention = sparse_attention("decoder-self", alpha)
    given = inputs("decoder-self")
    full, full_weights = attention(**given, need_head_weights=True)
    expected = weights_by_hand(attention, alpha, **given)
    output, weights = run_incrementally(attention, given["query"], range(TGT_LEN), {})
    assert_close(output, full)
    for t, weight in enumerate(weights):
        assert weight.shape == (HEADS, BSZ, 1, t + 1)
        assert_close(weight, full_weights[:, :, t : t + 1, : t + 1])
        assert torch.equal(weight == 0, expected[:, :, t : t + 1, : t + 1] == 0)
    assert_same_zeros(weights[-1], expected[:, :, -1:])


@over_alphas
def test_cross_attention_step_by_step(alpha):
    attention = sparse_attention("cross", alpha)
    given = inputs("cross")
    padding = torch.zeros(BSZ, SRC_LEN).bool()
    padding[2, :2] = True
    expected = weights_by_hand(attention, alpha, padding=padding, **given)
    full, _ = attention(**given, key_padding_mask=padding)
    state = {}
    for t in range(TGT_LEN):
        output, weights = attention(
            given["query"][t : t + 1],
            given["key"],
            given["value"],
            key_padding_mask=padding,
            incremental_state=state,
            static_kv=True,
            need_head_weights=True,
        )
        assert_close(output, full[t : t + 1])
        assert_same_zeros(weights, expected[:, :, t : t + 1])


def test_static_keys_are_read_once():
    attention = sparse_attention("cross")
    given = inputs("cross")
    state = {}
    first = attention(**given, incremental_state=state, static_kv=True)[0]
    other = torch.randn_like(given["key"])
    again = attention(given["query"], other, other, incremental_state=state, static_kv=True)[0]
    assert_close(again, first)
    assert not torch.allclose(attention(given["query"], other, other)[0], first)


def test_reorder_incremental_state():
    attention = sparse_attention("decoder-self")
    x = inputs("decoder-self")["query"]
    order = torch.tensor([2, 0, 0])
    state = {}
    run_incrementally(attention, x, range(2), state)
    state = attention.reorder_incremental_state(state, order)
    # each row goes on with its own input behind another row's prefix
    output, _ = run_incrementally(attention, x, [2], state)
    joined = torch.cat([x[:2, order], x[2:3]])
    expected, _ = run_incrementally(attention, joined, range(3), {})
    assert_close(output, expected[2:])
    assert not torch.allclose(output, run_incrementally(attention, x, range(3), {})[0][2:])


def test_padding_enters_and_leaves_step_by_step():
    # prefixes of different lengths: some rows are at a padding symbol in the first step
    attention = sparse_attention("decoder-self")
    x = inputs("decoder-self")["query"]
    state, outputs = {}, []
    for t in range(3):
        mask = torch.tensor([[False], [False], [True]]) if t == 0 else None
        step = x[t : t + 1]
        outputs.append(attention(step, step, step, mask, incremental_state=state)[0])
    tail = x[1:3, 2:]
    causal = torch.full((2, 2), -math.inf).triu(1)
    alone, _ = attention(tail, tail, tail, attn_mask=causal)
    assert_close(torch.cat(outputs)[1:, 2:], alone)


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@over_alphas
def test_beams_share_their_keys(alpha, padded):
    beam = 3
    attention = sparse_attention("cross", alpha)
    given = inputs("cross", bsz=2 * beam)
    # the hypotheses of a sentence look at the same source
    source = given["key"][:, ::beam].repeat_interleave(beam, 1)
    mask = None
    if padded:
        mask = torch.zeros(2 * beam, SRC_LEN).bool()
        mask[beam:, :2] = True
    expected = [
        attention(
            given["query"][t : t + 1], source, source, mask, static_kv=True, need_head_weights=True
        )
        for t in range(2)
    ]
    attention.set_beam_size(beam)
    state = {}
    for t, (output, weights) in enumerate(expected):
        shared_output, shared_weights = attention(
            given["query"][t : t + 1],
            source,
            source,
            mask,
            incremental_state=state,
            static_kv=True,
            need_head_weights=True,
        )
        assert_close(shared_output, output)
        assert_close(shared_weights, weights)
        assert_same_zeros(shared_weights, weights)
    (saved,) = state.values()
    assert saved["prev_key"].size(0) == 2  # or else nothing was shared


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


# ---- TorchScript


def saved_and_loaded(module):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


@over_alphas
@over_kinds
def test_script(kind, alpha):
    attention = sparse_attention(kind, alpha)
    given = inputs(kind)
    scripted = saved_and_loaded(attention)
    output, weights = attention(**given, need_head_weights=True)
    scripted_output, scripted_weights = scripted(**given, need_head_weights=True)
    assert_close(scripted_output, output)
    assert_close(scripted_weights, weights)
    assert_same_zeros(scripted_weights, weights)


class StepByStep(nn.Module):
    """A loop that can be scripted: TorchScript copies a state that comes from Python."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, order: Tensor) -> Tensor:
        state: Dict[str, Dict[str, Optional[Tensor]]] = {}
        outputs: List[Tensor] = []
        for t in range(x.size(0)):
            if t == 2:
                self.attention.reorder_incremental_state(state, order)
            step = x[t : t + 1]
            outputs.append(self.attention(step, step, step, incremental_state=state)[0])
        return torch.cat(outputs)


def test_script_incrementally():
    x = inputs("decoder-self")["query"]
    order = torch.tensor([2, 0, 0])
    loop = StepByStep(sparse_attention("decoder-self"))
    expected = loop(x, order)
    assert not torch.allclose(expected, loop(x, torch.arange(3)))
    assert_close(saved_and_loaded(loop)(x, order), expected)


# ---- sparsify_attention


def attentions(model):
    return [m for m in model.modules() if isinstance(m, MultiheadAttention)]


def test_sparsify_attention_replaces_all():
    model = build("transformer_tiny")
    names = list(model.state_dict())
    assert sparsify_attention(model, 1.7) is model
    found = attentions(model)
    assert len(found) == 2 + 2 * 2  # two encoder layers, two decoder layers with two each
    assert all(type(m) is EntmaxMultiheadAttention and m.alpha == 1.7 for m in found)
    assert list(model.state_dict()) == names


def test_sparsify_attention_alpha_one_leaves_stock():
    model = build("transformer_tiny")
    before = attentions(model)
    sparsify_attention(model, 1.0)
    assert all(a is b for a, b in zip(attentions(model), before))
    assert not any(isinstance(m, EntmaxMultiheadAttention) for m in before)


def test_sparsify_attention_turns_the_fused_layer_off():
    # fairseq 0.12.2's encoder layer has a softmax of its own for evaluation
    model = build("transformer_tiny")
    model.encoder.layers[0].can_use_fastpath = True
    sparsify_attention(model, 1.5)
    assert not model.encoder.layers[0].can_use_fastpath
