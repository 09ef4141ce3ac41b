"""Two attentions and their gate; tests/models/test_two_headed.py has the whole computation."""

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from fairseq_entmax.modules.two_headed_attention import (
    CHARACTER,
    GATES,
    PADDING,
    TAG,
    TwoHeadedAttention,
)

KINDS = torch.tensor(
    [[CHARACTER, CHARACTER, TAG, TAG], [CHARACTER, CHARACTER, CHARACTER, PADDING]]
).t()  # src_len x bsz; the second word has no tags


def inputs():
    torch.manual_seed(0)
    return 9 * torch.randn(2, 6, dtype=torch.float64), torch.randn(4, 2, 5, dtype=torch.float64)


def attention(**options):
    torch.manual_seed(1)
    module = TwoHeadedAttention(6, 5, 7, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(10)
    return module


@pytest.mark.parametrize("score", ["general", "mlp"])
@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
@torch.no_grad()
def test_each_head_has_its_positions(alpha, score):
    module = attention(alpha=alpha, score=score)
    query, source = inputs()
    weights = module(query, source, KINDS)[1]
    for head, probs, kind in zip(module.heads, (weights.lemma, weights.tags), (CHARACTER, TAG)):
        assert not probs[KINDS.t() != kind].any()
        for row in range(2):
            positions = KINDS[:, row] == kind
            scores = head.scores(query, source)[row, positions]
            expected = reference.entmax(scores, alpha) if positions.any() else scores
            assert_close(probs[row, positions], expected)


@pytest.mark.parametrize("gate", GATES)
@torch.no_grad()
def test_weights_of_the_heads(gate):
    gates = attention(gate_alpha=GATES[gate])(*inputs(), KINDS)[1].gate
    assert_close(gates.sum(dim=1), torch.ones(2).double())
    assert gates[1].tolist() == [1.0, 0.0]  # a word without tags


def test_shared_projection_has_one_weight():
    shared = attention(share_output=True)
    assert shared.heads[0].output_proj is shared.heads[1].output_proj
    separate = attention()
    count = sum(p.numel() for p in separate.parameters()) - sum(
        p.numel() for p in shared.parameters()
    )
    assert count == 7 * (6 + 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate_alpha": 0.5}, "alpha of a gate must be >= 1, got 0.5"),
        ({"gate_alpha": None, "share_output": True}, "nothing to share"),
        ({"alpha": 0.9}, "attention alpha must be >= 1, got 0.9"),
    ],
    ids=["gate", "shared", "alpha"],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attention(**options)
