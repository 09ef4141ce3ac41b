"""Multi-head attention by plain matrix products and the oracle, for every kind of attention."""

import math

import pytest
import torch
from fairseq.modules import MultiheadAttention

from fairseq_entmax.functional import reference
from fairseq_entmax.modules import EntmaxMultiheadAttention

DIM, SOURCE_DIM, HEADS = 8, 6, 2
HEAD_DIM = DIM // HEADS
TGT_LEN, SRC_LEN, BSZ = 4, 5, 3
ALPHAS = [1.25, 1.5, 2.0]
ALPHA_IDS = [f"alpha={a}" for a in ALPHAS]
KINDS = ["encoder-self", "decoder-self", "cross"]

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
