"""The weights that every attention has, against attention computed by hand."""

import pytest
import torch

from fairseq_entmax.analysis.attention import KINDS, attention_weights, chosen
from tests.builders import Task, build, sharpen

TARGET = torch.tensor([7, 8, 9, 2])
SOURCE = torch.tensor([[4, 5, 6, 2]])


def sample():
    return {"net_input": {"src_tokens": SOURCE, "src_lengths": torch.tensor([4])}}


def model(arch, **flags):
    return sharpen(build(arch, **flags))


def weights_of(arch, n=1, **flags):
    return attention_weights(
        [model(arch, seed=s, **flags) for s in range(1, n + 1)], sample(), TARGET
    )


@pytest.mark.parametrize("arch", ["transformer_entmax", "transformer", "lstm_entmax", "lstm"])
def test_every_row_is_a_distribution_over_what_is_there(arch):
    found = weights_of(arch)
    for w in found:
        torch.testing.assert_close(w.probs.sum(-1), torch.ones(w.probs.shape[:2]))
        sides = {"cross": (4, 4), "encoder": (4, 4), "decoder": (4, 4)}
        assert tuple(w.probs.shape[1:]) == sides[w.kind]
    kinds = {w.kind for w in found}
    assert kinds == ({"cross"} if "lstm" in arch else set(KINDS))


def test_layers_and_heads_are_those_of_the_model():
    found = weights_of("transformer_entmax", decoder_layers=2, encoder_layers=3)
    assert [w.layer for w in found if w.kind == "encoder"] == [1, 2, 3]
    assert [w.layer for w in found if w.kind == "cross"] == [1, 2]
    assert all(len(w.heads) == len(w.probs) == 8 for w in found)


def test_the_decoder_does_not_look_ahead():
    decoder = chosen(weights_of("transformer_entmax"), "decoder")[0]
    assert (decoder.probs.triu(1) == 0).all()


def test_sparse_attention_has_zeros_and_its_twin_none():
    sparse = weights_of("transformer_entmax", attention_temperature=1e-3)
    assert (chosen(sparse)[0].probs == 0).any()
    assert (chosen(weights_of("transformer"))[0].probs > 0).all()


@torch.no_grad()
def test_looking_changes_nothing():
    for arch in ("transformer", "transformer_entmax", "lstm_entmax"):
        one = model(arch)
        inputs = {**sample()["net_input"], "prev_output_tokens": torch.tensor([[2, 7, 8, 9]])}
        before = one(**inputs)[0]
        attention_weights([one], sample(), TARGET)
        assert torch.equal(one(**inputs)[0], before)


@torch.no_grad()
@pytest.mark.parametrize("arch", ["transformer", "transformer_entmax", "lstm", "lstm_entmax"])
def test_cross_attention_is_what_the_model_itself_returns(arch):
    one = model(arch)
    previous = torch.tensor([[2, 7, 8, 9]])
    _, extra = one(**sample()["net_input"], prev_output_tokens=previous)
    told = extra["attn"][0] if isinstance(extra, dict) else extra
    found = chosen(attention_weights([one], sample(), TARGET))[0].head(None)
    torch.testing.assert_close(found, told[0])


def test_an_ensemble_has_the_mean_of_its_models():
    both = weights_of("lstm_entmax", 2)[0].probs
    alone = [
        attention_weights([model("lstm_entmax", seed=s)], sample(), TARGET)[0].probs for s in (1, 2)
    ]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def test_unlike_models_have_no_mean():
    unlike = [model("transformer_entmax"), model("transformer_entmax", decoder_attention_heads=4)]
    with pytest.raises(ValueError, match="differ in layers or heads"):
        attention_weights(unlike, sample(), TARGET)


def test_two_heads_and_their_gate():
    task = Task()
    for symbol in ("<N>", "<PL>"):
        task.source_dictionary.add_symbol(symbol)
    one = sharpen(build("two_headed_lstm_entmax", task=task))
    words = task.source_dictionary
    tokens = torch.tensor([[4, 5, words.index("<N>"), words.index("<PL>"), 2]])
    batch = {"net_input": {"src_tokens": tokens, "src_lengths": torch.tensor([5])}}
    (found,) = attention_weights([one], batch, TARGET)
    characters, features = found.probs
    assert (characters[:, 2:4] == 0).all() and (features[:, [0, 1, 4]] == 0).all()
    gate = found.gate
    expected = gate[:, :1] * characters + gate[:, 1:] * features
    torch.testing.assert_close(found.head(None), expected)


@pytest.mark.parametrize(
    ("kind", "layer", "head", "message"),
    [
        ("encoder", None, None, "no encoder attention; it has cross"),
        ("cross", 2, None, "layers 1 to 1, got 2"),
        ("cross", 0, None, "layers 1 to 1, got 0"),
        ("cross", 1, 2, "heads 1 to 1, got 2"),
    ],
)
def test_what_is_not_there_is_said(kind, layer, head, message):
    with pytest.raises(ValueError, match=message):
        chosen(weights_of("lstm_entmax"), kind, layer)[0].head(head)
