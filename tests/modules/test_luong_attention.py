"""Attention of recurrent decoders: scores by hand, weights from the oracle."""

import math

import pytest
import torch
from fairseq.models.lstm import AttentionLayer
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from fairseq_entmax.modules import EntmaxLuongAttention
from tests.builders import scripted

QUERY_DIM, SOURCE_DIM, OUTPUT_DIM = 6, 8, 5
SRC_LEN, BSZ = 7, 4
ALPHAS = [1.0, 1.25, 1.5, 2.0]
SCORES = ["dot", "general", "mlp"]

over_alphas = pytest.mark.parametrize("alpha", ALPHAS, ids=[f"alpha={a}" for a in ALPHAS])
over_scores = pytest.mark.parametrize("score", SCORES)

# (src_len, bsz), True at padding
PADDING = torch.zeros(SRC_LEN, BSZ).bool()
PADDING[5:, 1] = True
PADDING[2:, 3] = True


def build_attention(score="general", alpha=1.5):
    query_dim = SOURCE_DIM if score == "dot" else QUERY_DIM
    attention = EntmaxLuongAttention(query_dim, SOURCE_DIM, OUTPUT_DIM, alpha, score)
    with torch.no_grad():
        for parameter in attention.parameters():  # fresh ones are too small for sparse weights
            parameter.normal_()
    return attention


def inputs(score="general", dtype=torch.float32):
    query_dim = SOURCE_DIM if score == "dot" else QUERY_DIM
    return torch.randn(BSZ, query_dim, dtype=dtype), torch.randn(SRC_LEN, BSZ, SOURCE_DIM).to(dtype)


def score_by_hand(attention, state, encoded):
    """One decoder state against one encoder state, as the table in the docstring has it."""
    if attention.score == "dot":
        return state.dot(encoded)
    projected = attention.input_proj.weight @ state
    if attention.score == "general":
        return projected.dot(encoded)
    hidden = torch.tanh(projected + attention.source_proj.weight @ encoded)
    return attention.score_proj.weight[0].dot(hidden)


def by_hand(attention, query, source, padding=None):
    """Output (bsz, output_dim) and weights (src_len, bsz), one number after the other."""
    weights = torch.zeros(SRC_LEN, BSZ, dtype=torch.float64)
    outputs = []
    for b in range(BSZ):
        scores = torch.stack([score_by_hand(attention, query[b], h) for h in source[:, b]])
        if padding is not None:
            scores = scores.masked_fill(padding[:, b], -math.inf)
        weights[:, b] = reference.entmax(scores, attention.alpha)
        context = (weights[:, b : b + 1].to(source.dtype) * source[:, b]).sum(0)
        joined = torch.cat([context, query[b]])
        outputs.append(torch.tanh(attention.output_proj.weight @ joined))
    return torch.stack(outputs), weights


@over_alphas
@over_scores
@pytest.mark.parametrize("padding", [None, PADDING], ids=["full", "padded"])
def test_by_hand(score, alpha, padding):
    attention = build_attention(score, alpha)
    query, source = inputs(score)
    output, weights = attention(query, source, padding)
    expected_output, expected = by_hand(attention, query, source, padding)
    assert_close(output, expected_output, atol=1e-5, rtol=1e-5)
    assert_close(weights.double(), expected, atol=2e-6, rtol=0)
    assert torch.equal(weights == 0, expected == 0)
    masked = PADDING if padding is not None else torch.zeros_like(PADDING)
    assert weights[masked].eq(0).all()
    assert (weights[~masked] == 0).any() == (alpha > 1)


@over_scores
def test_zeros_are_exact_in_training(score):
    attention = build_attention(score).train()
    query, source = inputs(score)
    _, weights = attention(query.requires_grad_(), source, PADDING)
    assert torch.equal(weights == 0, by_hand(attention, query, source, PADDING)[1] == 0)


@over_alphas
def test_fully_padded_column(alpha):
    attention = build_attention(alpha=alpha)
    query, source = inputs()
    query.requires_grad_()
    padding = PADDING.clone()
    padding[:, 2] = True
    output, weights = attention(query, source, padding)
    assert weights[:, 2].eq(0).all()
    nothing = torch.cat([torch.zeros(SOURCE_DIM), query[2]])
    assert_close(output[2], torch.tanh(attention.output_proj.weight @ nothing))
    output.sum().backward()
    assert all(p.grad.isfinite().all() for p in [query, *attention.parameters()])
    others = [0, 1, 3]
    assert_close(output[others], attention(query, source, PADDING)[0][others])


def test_general_has_the_stock_names():
    stock = AttentionLayer(QUERY_DIM, SOURCE_DIM, OUTPUT_DIM).state_dict()
    sparse = build_attention().state_dict()
    assert {name: p.shape for name, p in sparse.items()} == {n: p.shape for n, p in stock.items()}


@pytest.mark.parametrize("padding", [None, PADDING], ids=["full", "padded"])
def test_alpha_one_is_stock(padding):
    stock = AttentionLayer(QUERY_DIM, SOURCE_DIM, OUTPUT_DIM)
    sparse = build_attention(alpha=1.0)
    stock.load_state_dict(sparse.state_dict())
    query, source = inputs()
    for got, expected in zip(sparse(query, source, padding), stock(query, source, padding)):
        assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_fresh_parameters_are_drawn_as_in_stock():
    torch.manual_seed(7)
    stock = AttentionLayer(QUERY_DIM, SOURCE_DIM, OUTPUT_DIM)
    torch.manual_seed(7)
    sparse = EntmaxLuongAttention(QUERY_DIM, SOURCE_DIM, OUTPUT_DIM)
    for name, parameter in stock.state_dict().items():
        assert torch.equal(sparse.state_dict()[name], parameter)


@pytest.mark.parametrize(
    ("score", "n_parameters"),
    [
        ("dot", OUTPUT_DIM * 2 * SOURCE_DIM),
        ("general", QUERY_DIM * SOURCE_DIM + OUTPUT_DIM * (QUERY_DIM + SOURCE_DIM)),
        (
            "mlp",
            QUERY_DIM * SOURCE_DIM
            + SOURCE_DIM * SOURCE_DIM
            + SOURCE_DIM
            + OUTPUT_DIM * (QUERY_DIM + SOURCE_DIM),
        ),
    ],
    ids=SCORES,
)
def test_parameters_of_each_score(score, n_parameters):
    attention = build_attention(score)
    assert sum(p.numel() for p in attention.parameters()) == n_parameters


@over_alphas
@over_scores
def test_gradient(score, alpha):
    attention = build_attention(score, alpha).double()
    query, source = inputs(score, torch.float64)
    leaves = (query.requires_grad_(), source.requires_grad_())
    assert torch.autograd.gradcheck(lambda q, s: attention(q, s, PADDING)[0], leaves)
    attention(query, source, PADDING)[0].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in attention.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@over_scores
def test_half_precision(score, dtype):
    attention = build_attention(score).to(dtype)
    query, source = inputs(score, dtype)
    output, weights = attention(query, source, PADDING)
    assert output.dtype == weights.dtype == dtype
    scores = attention.scores(query, source).masked_fill(PADDING.t(), -math.inf)
    expected = reference.entmax(scores, 1.5).t()
    assert_close(weights.double(), expected, atol=torch.finfo(dtype).eps, rtol=0)
    assert torch.equal(weights == 0, expected == 0)


@over_alphas
@over_scores
def test_script(score, alpha):
    attention = build_attention(score, alpha)
    query, source = inputs(score)
    loaded = scripted(attention)
    for padding in (None, PADDING):
        for got, expected in zip(loaded(query, source, padding), attention(query, source, padding)):
            assert_close(got, expected, atol=1e-6, rtol=1e-6)
            assert torch.equal(got == 0, expected == 0)


@pytest.mark.parametrize("alpha", [0.5, -1.0, math.nan])
def test_alpha_below_one_is_refused(alpha):
    with pytest.raises(ValueError, match=f"attention alpha must be >= 1, got {alpha}"):
        EntmaxLuongAttention(QUERY_DIM, SOURCE_DIM, OUTPUT_DIM, alpha)


def test_unknown_score_is_refused():
    with pytest.raises(ValueError, match=r"one of dot, general, mlp, got 'concat'"):
        EntmaxLuongAttention(QUERY_DIM, SOURCE_DIM, OUTPUT_DIM, score="concat")


def test_dot_of_unequal_sizes_is_refused():
    with pytest.raises(ValueError, match=r"got 6 and 8: use the score 'general'"):
        EntmaxLuongAttention(QUERY_DIM, SOURCE_DIM, OUTPUT_DIM, score="dot")
