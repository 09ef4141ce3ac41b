"""Learned alpha: one per head, with the true gradient, in training and in decoding."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from fairseq_entmax.modules import (
    EntmaxLuongAttention,
    EntmaxMultiheadAttention,
    LearnedAlpha,
    learned_alphas,
)
from tests.builders import scripted
from tests.pretend_device import PretendDevice, module_to_device, to_device

from .attention_by_hand import (
    HEADS,
    TGT_LEN,
    inputs,
    output_by_hand,
    over_kinds,
    stock_attention,
    weights_by_hand,
)

ALPHAS = [1.2, 1.7]  # one for each head


def with_alphas(module, alphas):
    alphas = torch.tensor(alphas, dtype=torch.float64)
    with torch.no_grad():
        module.scores.copy_(torch.log(alphas - 1) - torch.log(2 - alphas))
    return module


def learned_attention(kind, alphas=ALPHAS, **options):
    stock = stock_attention(kind, **options)
    attention = EntmaxMultiheadAttention.from_stock(stock, 1.5, learn_alpha=True)
    with_alphas(attention.learned_alpha, alphas)
    return attention


def expected_weights(attention, **given):
    """Each head by the oracle, with its own alpha."""
    per_head = [weights_by_hand(attention, alpha, **given)[h] for h, alpha in enumerate(ALPHAS)]
    return torch.stack(per_head)


# ---- the parameter


@pytest.mark.parametrize("start", [1.001, 1.25, 1.5, 1.9])
def test_all_heads_begin_at_the_start(start):
    alphas = LearnedAlpha(4, start)()
    assert_close(alphas, torch.full((4,), start), atol=1e-6, rtol=0)


@pytest.mark.parametrize("start", [1, 2, 0.5, 2.5, math.nan])
def test_a_start_outside_is_refused(start):
    with pytest.raises(ValueError, match=rf"\(1, 2\).*got {start}"):
        LearnedAlpha(4, start)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_no_parameter_leads_out_of_bounds(dtype):
    alpha = LearnedAlpha(3, 1.5).to(dtype)
    with torch.no_grad():
        alpha.scores.copy_(torch.tensor([-6e4, 0, 6e4]))
    assert alpha().dtype == torch.float32
    assert_close(alpha(), torch.tensor([1.0, 1.5, 2.0]))


# ---- multi-head attention


@over_kinds
def test_each_head_has_its_alpha(kind):
    attention = learned_attention(kind)
    given = inputs(kind)
    output, weights = attention(**given, need_head_weights=True)
    expected = expected_weights(attention, **given)
    assert_close(weights.double(), expected, atol=2e-6, rtol=0)
    assert torch.equal(weights == 0, expected == 0)
    by_hand = output_by_hand(attention, expected, given["value"])
    assert_close(output, by_hand, atol=1e-5, rtol=1e-5)


@over_kinds
def test_gradient_equals_finite_differences(kind):
    attention = learned_attention(kind).double().train()
    given = inputs(kind, dtype=torch.float64)
    direction = torch.randn(TGT_LEN, 3, 8, dtype=torch.float64)
    parameter = attention.learned_alpha.scores

    def value():
        return (attention(**given)[0] * direction).sum()

    value().backward()
    for head in range(HEADS):
        step = torch.zeros(HEADS, dtype=torch.float64)
        step[head] = 1e-5
        with torch.no_grad():
            parameter += step
            above = value()
            parameter -= 2 * step
            below = value()
            parameter += step
        assert parameter.grad[head] != 0
        assert_close(parameter.grad[head], (above - below) / 2e-5, atol=1e-7, rtol=1e-5)


def test_gradient_equals_the_oracles_slope():
    """Of one probability, by the mathematics alone: nothing of ours on the other side."""
    alpha = with_alphas(LearnedAlpha(1, 1.5), [1.4])
    attention = EntmaxLuongAttention(6, 6, 6, 1.5, "dot", learn_alpha=True).double()
    attention.learned_alpha.load_state_dict(alpha.state_dict())
    scores = torch.tensor([[1.0, 0.4, -0.2, -4.0]], dtype=torch.float64)
    attention.sparse_weights(scores)[0, 0].backward()
    a = attention.learned_alpha.scores

    def oracle(step):
        sigmoid = torch.sigmoid(a.detach() + step).item()
        return reference.entmax(scores, 1 + sigmoid)[0, 0]

    assert_close(a.grad[0], (oracle(1e-5) - oracle(-1e-5)) / 2e-5, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_precision_parameters(dtype):
    attention = learned_attention("encoder-self").to(dtype).train()
    given = inputs("encoder-self", dtype=dtype)
    output, weights = attention(**given, need_head_weights=True)
    assert output.dtype == weights.dtype == dtype
    output.float().square().sum().backward()
    gradient = attention.learned_alpha.scores.grad
    assert gradient.dtype == dtype
    assert gradient.isfinite().all() and gradient.any()


def test_autocast():
    attention = learned_attention("encoder-self").train()
    given = inputs("encoder-self")
    wide = copy.deepcopy(attention)
    wide(**given)[0].sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, weights = attention(**given, need_head_weights=True)
    output.float().sum().backward()
    gradients = [a.learned_alpha.scores.grad for a in (attention, wide)]
    assert gradients[0].dtype == torch.float32
    assert_close(*gradients, atol=0.1 * float(gradients[1].abs().max()), rtol=0.1)
    assert_close(weights.sum(-1).float(), torch.ones(weights.shape[:-1]), atol=0.02, rtol=0)


def test_step_by_step_with_shared_beams():
    """As the search asks for it: incremental state, cross-attention of several hypotheses."""
    attention = learned_attention("decoder-self")
    given = inputs("decoder-self")
    full, _ = attention(**given)
    state = {}
    for t in range(TGT_LEN):
        step = given["query"][t : t + 1]
        output, _ = attention(step, step, step, incremental_state=state)
        assert_close(output, full[t : t + 1])

    cross = learned_attention("cross")
    given = inputs("cross", bsz=4)
    source = given["key"][:, ::2].repeat_interleave(2, 1)  # two hypotheses of each sentence
    alone, _ = cross(given["query"][:1], source, source, static_kv=True)
    cross.set_beam_size(2)
    shared, _ = cross(given["query"][:1], source, source, incremental_state={}, static_kv=True)
    assert_close(shared, alone)


@over_kinds
def test_script(kind):
    attention = learned_attention(kind)
    given = inputs(kind)
    for got, wanted in zip(scripted(attention)(**given), attention(**given)):
        assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_stock_attention_gets_no_parameter():
    stock = stock_attention("cross")
    names = list(stock.state_dict())
    EntmaxMultiheadAttention.from_stock(stock, 1.5, learn_alpha=True)
    assert list(stock.state_dict()) == names


def test_learning_can_be_switched_off_again():
    attention = learned_attention("cross")
    fixed = EntmaxMultiheadAttention.from_stock(attention, 1.3)
    given = inputs("cross")
    weights = fixed(**given, need_head_weights=True)[1]
    assert_close(weights.double(), weights_by_hand(fixed, 1.3, **given), atol=2e-6, rtol=0)
    assert not learned_alphas(fixed)


# ---- recurrent attention


@pytest.mark.parametrize("score", ["dot", "general", "mlp"])
def test_luong_attention(score):
    attention = EntmaxLuongAttention(6, 6, 6, 1.5, score, learn_alpha=True)
    with_alphas(attention.learned_alpha, [1.8])
    query, source = 3 * torch.randn(2, 6), 3 * torch.randn(5, 2, 6)
    mask = torch.zeros(5, 2).bool()
    mask[4, 0] = True
    output, probs = attention(query, source, mask)
    scores = attention.scores(query, source).masked_fill(mask.t(), -math.inf)
    assert_close(probs.t().double(), reference.entmax(scores.detach(), 1.8), atol=2e-6, rtol=0)
    assert probs[4, 0] == 0
    for got, wanted in zip(scripted(attention)(query, source, mask), (output, probs)):
        assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_learned_alphas_by_name():
    model = nn.ModuleDict({"cross": learned_attention("cross"), "other": nn.Linear(2, 2)})
    found = learned_alphas(model)
    assert list(found) == ["cross"]
    assert_close(found["cross"], torch.tensor(ALPHAS))
    assert not found["cross"].requires_grad


def test_scripted_alphas_wait_for_no_head():
    """Only for Newton's steps, of which there are fewer than heads."""
    learned, scores = LearnedAlpha(64, 1.5), torch.randn(128, 3, 5)
    with_alphas(learned, torch.linspace(1.01, 1.99, 64).tolist())
    expected = learned.entmax_dense(scores)
    for head in (0, 31, 63):
        alpha = float(learned()[head].detach())
        assert_close(
            expected[head].double(), reference.entmax(scores[head], alpha), atol=2e-6, rtol=0
        )
    with PretendDevice() as pretended:
        found = module_to_device(learned).entmax_dense(to_device(scores))
    assert sum(pretended.waits.values()) < 30
    assert_close(found.data_on_cpu, expected)
