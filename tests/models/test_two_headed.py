"""The two-headed LSTM: against a plain re-computation, word by word and step by step."""

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.data.language_pair_dataset import collate
from fairseq.sequence_generator import SequenceGenerator
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from fairseq_entmax.modules.two_headed_attention import CHARACTER, PADDING, TAG
from tests.builders import build, sharpen

ARCH = "two_headed_lstm_entmax"
LETTERS, TAGS = "abcdefgh", ["<lang:de>", "<lang:ru>", "<N>", "<PL>", "<GEN>"]
WORDS = {
    "usual": ("abcde <lang:de> <N> <PL>", "abba"),
    "no features": ("hgf", "gh"),
    "one letter": ("a <lang:ru> <N>", "ab"),
    "unknown letter": ("aZc <lang:ru> <GEN>", "ac"),
    "unknown feature": ("bad <lang:de> <N> <NEW>", "bed"),
}
OPTIONS = {
    "default": {},
    "ungated": {"gate": "none"},
    "softmax gate": {"gate": "softmax"},
    "sparsemax gate": {"gate": "sparsemax"},
    "shared projection": {"share_gate_output": True},
    "language embedding": {"language_embed_dim": 3},
    "no tag summary": {"tag_summary_dim": 0},
    "tag summary and language": {"tag_summary_dim": 3, "language_embed_dim": 2},
    "softmax attention": {"attention_alpha": 1.0},
    "two layers": {"encoder_layers": 2, "decoder_layers": 2, "tag_layers": 2},
    "unequal sizes": {"encoder_hidden_size": 5, "decoder_hidden_size": 14},
    "tied": {"share_all_embeddings": True, "decoder_out_embed_dim": 8},
}
GATE_ALPHAS = {"softmax": 1.0, "entmax": 1.5, "sparsemax": 2.0}
over_options = pytest.mark.parametrize("flags", OPTIONS.values(), ids=OPTIONS)


class Words:
    """A translation task whose dictionary has letters and tags."""

    def __init__(self):
        words = Dictionary()
        for symbol in [*LETTERS, *TAGS]:
            words.add_symbol(symbol)
        self.source_dictionary = self.target_dictionary = words


TASK = Words()
DICT = TASK.source_dictionary


def indices(line):
    """``abc <N>`` -> the indices of a, b, c, <N> and the end of the line."""
    word, *tags = line.split()
    return torch.tensor([*map(DICT.index, [*word, *tags]), DICT.eos()])


def inputs(names, left_pad=True, padding=0):
    """The words in one batch, longest first as fairseq's encoders want it."""
    samples = [
        {"id": i, "source": indices(WORDS[name][0]), "target": indices(WORDS[name][1])}
        for i, name in enumerate(names)
    ]
    collated = collate(samples, DICT.pad(), DICT.eos(), left_pad_source=left_pad)
    order = [names[i] for i in collated["id"]]
    net_input = collated["net_input"]
    net_input["src_tokens"] = torch.nn.functional.pad(
        net_input["src_tokens"], (padding, 0) if left_pad else (0, padding), value=DICT.pad()
    )
    return net_input, order


def model(seed=3, **flags):
    # float64: a sharpened recurrent model makes large differences of rounding errors
    return sharpen(build(ARCH, seed=seed, task=TASK, **flags)).double()


# ---- by hand: one word, no padding, no packing


def entmax(scores, alpha):
    return reference.entmax(scores, alpha)


def read(lstm, x):
    """States (len, units) and the last states of both directions, (layers, units)."""
    states, finals = lstm(x.unsqueeze(0))
    return states[0], [torch.cat([final[0::2, 0], final[1::2, 0]], dim=1) for final in finals]


def attend_by_hand(head, state, states):
    if len(states) == 0:
        return state.new_zeros(states.size(1)), state.new_zeros(0)
    probs = entmax(states @ head.input_proj(state), head.alpha)
    return probs @ states, probs


def step_by_hand(attention, flags, state, characters, tags):
    """h, the attention over characters and over tags, the gate."""
    contexts, probs = zip(
        *(attend_by_hand(head, state, s) for head, s in zip(attention.heads, (characters, tags)))
    )
    joint = torch.cat([*contexts, state])
    gate_name = flags.get("gate", "entmax")
    if gate_name == "none":
        gate = state.new_tensor([0.5, 0.5] if len(tags) else [1.0, 0.0])
        return torch.tanh(attention.output_proj.weight @ joint), probs, gate
    gate = state.new_tensor([1.0, 0.0])
    if len(tags):
        scores = attention.gate.weight @ joint + attention.gate.bias
        gate = entmax(scores, GATE_ALPHAS[gate_name])
    output = sum(
        weight * torch.tanh(head.output_proj.weight @ torch.cat([context, state]))
        for weight, head, context in zip(gate, attention.heads, contexts)
    )
    return output, probs, gate


def by_hand(two_headed, flags, name):
    """Scores (tgt_len, V), and per step the attention over characters, over tags, the gate."""
    encoder, decoder = two_headed.encoder, two_headed.decoder
    word, *tags = WORDS[name][0].split()
    symbols = indices(WORDS[name][0])
    letters = torch.cat([symbols[: len(word)], symbols[-1:]])
    tag_symbols = symbols[len(word) : -1]
    x = encoder.embed_tokens(letters)
    if flags.get("language_embed_dim"):
        known = [DICT.index(t) for t in tags if t.startswith("<lang:")] or [DICT.pad()]
        language = encoder.embed_language.weight[known[0]]
        x = torch.cat([x, language.expand(len(x), -1)], dim=1)
    tag_states, summary = x.new_zeros(0, encoder.output_units), x.new_zeros(encoder.output_units)
    if len(tag_symbols):
        tag_states, (finals, _) = read(encoder.tags.lstm, encoder.embed_tokens(tag_symbols))
        summary = finals[-1]
    if flags.get("tag_summary_dim", 64):
        x = torch.cat([x, encoder.tag_summary(summary).expand(len(x), -1)], dim=1)
    characters, (hiddens, cells) = read(encoder.characters.lstm, x)
    if decoder.encoder_hidden_proj is not None:
        hiddens, cells = decoder.encoder_hidden_proj(hiddens), decoder.encoder_cell_proj(cells)
    hiddens, cells = list(hiddens), list(cells)
    feed, outs, attended = hiddens[0].new_zeros(decoder.hidden_size), [], []
    for token in [DICT.eos(), *indices(WORDS[name][1])[:-1].tolist()]:
        x = torch.cat([decoder.embed_tokens.weight[token], feed])
        for i, rnn in enumerate(decoder.layers):
            hidden, cell = rnn(x.unsqueeze(0), (hiddens[i].unsqueeze(0), cells[i].unsqueeze(0)))
            hiddens[i], cells[i] = hidden[0], cell[0]
            x = hiddens[i]
        feed, probs, gate = step_by_hand(decoder.attention, flags, x, characters, tag_states)
        outs.append(feed)
        attended.append((*probs, gate))
    features = torch.stack(outs)
    if hasattr(decoder, "additional_fc"):
        features = decoder.additional_fc(features)
    return decoder.output_layer(features), attended


@over_options
@torch.no_grad()
def test_equals_the_plain_recomputation(flags):
    two_headed = model(**flags)
    batch, order = inputs(list(WORDS))
    scores, extra = two_headed(**batch)
    for row, name in enumerate(order):
        expected, attended = by_hand(two_headed, flags, name)
        n = len(expected)
        assert_close(scores[row, :n], expected, atol=1e-4, rtol=1e-4)
        source = indices(WORDS[name][0])
        lemma, tags = (
            extra["lemma"][row, :n, -len(source) :],
            extra["tags"][row, :n, -len(source) :],
        )
        length = len(WORDS[name][0].split()[0])
        for step, (on_characters, on_tags, gate) in enumerate(attended):
            expected_lemma = torch.zeros(len(source)).double()
            expected_lemma[[*range(length), len(source) - 1]] = on_characters
            expected_tags = torch.zeros(len(source)).double()
            expected_tags[length : len(source) - 1] = on_tags
            assert_close(lemma[step], expected_lemma, atol=1e-4, rtol=0)
            assert_close(tags[step], expected_tags, atol=1e-4, rtol=0)
            assert_close(extra["gate"][row, step], gate, atol=1e-4, rtol=0)


def test_the_recomputation_meets_sparse_and_dense_gates():
    batch, _ = inputs(["usual"])
    with torch.no_grad():
        gates = {gate: model(gate=gate)(**batch)[1]["gate"] for gate in ("softmax", "sparsemax")}
    assert (gates["softmax"] > 0).all()
    assert (gates["sparsemax"] == 0).any()


# ---- the encoder


@torch.no_grad()
def test_kinds_of_symbols():
    encoder = model().encoder
    batch, order = inputs(list(WORDS))
    kinds = dict(zip(order, encoder.kinds(batch["src_tokens"]).tolist()))
    pad, char, tag = PADDING, CHARACTER, TAG
    width = batch["src_tokens"].size(1)
    expected = {
        "usual": [char] * 5 + [tag] * 3 + [char],
        "no features": [char] * 4,
        "one letter": [char, tag, tag, char],
        "unknown letter": [char] * 3 + [tag] * 2 + [char],
        "unknown feature": [char] * 3 + [tag] * 3 + [char],
    }
    assert kinds == {name: [pad] * (width - len(row)) + row for name, row in expected.items()}


@torch.no_grad()
def test_an_unknown_symbol_at_the_very_start_is_a_letter():
    tokens = torch.tensor([[DICT.unk(), DICT.index("a"), DICT.index("<N>"), DICT.eos()]])
    assert model().encoder.kinds(tokens).tolist() == [[CHARACTER, CHARACTER, TAG, CHARACTER]]


@pytest.mark.parametrize("left_pad", [True, False], ids=["left", "right"])
@torch.no_grad()
def test_padding_makes_no_difference(left_pad):
    two_headed = model(language_embed_dim=3, tag_summary_dim=3)
    batch, order = inputs(list(WORDS), left_pad=left_pad, padding=4)
    scores, _ = two_headed(**batch)
    for row, name in enumerate(order):
        alone, _ = inputs([name])
        expected = two_headed(**alone)[0][0]
        assert_close(scores[row, : len(expected)], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_tags_before_the_letters_mean_the_same():
    two_headed = model()
    batch, _ = inputs(["usual"])
    scores, _ = two_headed(**batch)
    tokens = batch["src_tokens"]
    batch["src_tokens"] = torch.cat([tokens[:, 5:8], tokens[:, :5], tokens[:, 8:]], dim=1)
    assert_close(two_headed(**batch)[0], scores, atol=1e-5, rtol=1e-5)


def test_language_embedding_tells_languages_apart_and_only_them():
    encoder = model(language_embed_dim=3).encoder
    batch, _ = inputs(list(WORDS))
    encoder(batch["src_tokens"], None).states.sum().backward()
    used = encoder.embed_language.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert used == [DICT.index("<lang:de>"), DICT.index("<lang:ru>")]


# ---- decoding and training


@pytest.mark.parametrize("gate", ["none", "entmax"])
@torch.no_grad()
def test_incremental_equals_full(gate):
    two_headed = model(gate=gate)
    batch, _ = inputs(list(WORDS))
    full, extra = two_headed(**batch)
    encoder_out = two_headed.encoder(batch["src_tokens"])
    state = {}
    previous = batch["prev_output_tokens"]
    for step in range(previous.size(1)):
        scores, attended = two_headed.decoder(
            previous[:, : step + 1], encoder_out=encoder_out, incremental_state=state
        )
        assert_close(scores[:, 0], full[:, step], atol=1e-5, rtol=1e-5)
        for name in ("lemma", "tags", "gate"):
            assert_close(attended[name][:, 0], extra[name][:, step], atol=1e-6, rtol=0)


@torch.no_grad()
def test_reordering_follows_the_beams():
    two_headed = model()
    batch, _ = inputs(list(WORDS))
    order = torch.tensor([3, 0, 0, 2])
    previous = batch["prev_output_tokens"][:, :2]
    encoder_out, state = two_headed.encoder(batch["src_tokens"]), {}
    two_headed.decoder(previous[:, :1], encoder_out=encoder_out, incremental_state=state)
    two_headed.decoder.reorder_incremental_state_scripting(state, order)
    moved = two_headed.encoder.reorder_encoder_out(encoder_out, order)
    scores, _ = two_headed.decoder(previous[order], encoder_out=moved, incremental_state=state)
    full = two_headed(batch["src_tokens"][order], None, previous[order])[0]
    assert_close(scores[:, 0], full[:, 1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_beams_alignment_is_the_attention():
    two_headed = model(output_alpha=1.0)
    batch, order = inputs(list(WORDS))
    generator = SequenceGenerator([two_headed], DICT, beam_size=2, max_len=6)
    answers = generator.generate([two_headed], {"net_input": batch})
    for row, name in enumerate(order):
        best = answers[row][0]
        alone, _ = inputs([name])
        alone["prev_output_tokens"] = torch.cat([best["tokens"][-1:], best["tokens"][:-1]])[None]
        expected = two_headed(**alone)[1]["attn"][0][0]  # tgt_len x src_len
        padding, attention = (
            best["attention"]
            .t()
            .double()
            .split([batch["src_tokens"].size(1) - expected.size(1), expected.size(1)], dim=1)
        )
        assert not padding.any()
        assert_close(attention, expected, atol=1e-5, rtol=0)
        assert_close(expected.sum(dim=1), torch.ones(len(expected)).double())


def test_every_parameter_is_trained():
    for flags in OPTIONS.values():
        two_headed = model(**flags).train()
        batch, _ = inputs(list(WORDS))
        scores, extra = two_headed(**batch)
        assert extra is None
        scores.square().sum().backward()
        unused = [n for n, p in two_headed.named_parameters() if p.grad is None]
        assert not unused, flags


# ---- flags


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"gate": "none", "share_gate_output": True}, "without a gate"),
        ({"decoder_attention": "0"}, "is its attention"),
        ({"attention_alpha": 0.5}, "must be >= 1"),
    ],
    ids=["nothing to share", "no attention", "alpha"],
)
def test_refused_flags(flags, message):
    with pytest.raises(ValueError, match=message):
        build(ARCH, task=TASK, **flags)


def test_sizes_of_the_source():
    two_headed = build(
        "two_headed_lstm_entmax_sigmorphon",
        task=TASK,
        **dict.fromkeys(("encoder_embed_dim", "encoder_hidden_size", "decoder_embed_dim")),
        **dict.fromkeys(("decoder_hidden_size", "decoder_out_embed_dim", "dropout")),
    )
    characters, tags = two_headed.encoder.characters.lstm, two_headed.encoder.tags.lstm
    assert (characters.input_size, characters.hidden_size, characters.num_layers) == (200, 100, 2)
    assert (tags.input_size, tags.hidden_size, tags.num_layers) == (180, 100, 1)
    assert two_headed.encoder.tag_summary is None
    assert len(two_headed.decoder.layers) == 2
    assert two_headed.decoder.hidden_size == two_headed.encoder.output_units == 200
