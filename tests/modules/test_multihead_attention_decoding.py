"""Sparse multi-head attention step by step, with shared beams, and compiled by TorchScript."""

import math
from typing import Dict, List, Optional

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.builders import scripted

from .attention_by_hand import (
    BSZ,
    HEADS,
    SRC_LEN,
    TGT_LEN,
    assert_same_zeros,
    inputs,
    over_alphas,
    over_kinds,
    sparse_attention,
    weights_by_hand,
)

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


# ---- TorchScript


@over_alphas
@over_kinds
def test_script(kind, alpha):
    attention = sparse_attention(kind, alpha)
    given = inputs(kind)
    loaded = scripted(attention)
    output, weights = attention(**given, need_head_weights=True)
    scripted_output, scripted_weights = loaded(**given, need_head_weights=True)
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
    assert_close(scripted(loop)(x, order), expected)
