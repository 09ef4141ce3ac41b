"""Beam search on the support alone finds what it finds with log p of all words."""

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator

from fairseq_entmax.decoding import make_sparse
from fairseq_entmax.decoding.sparse_step import SWITCH, SparseStep
from tests.builders import Task, batch, build

TASK = Task(60)
WORDS = TASK.target_dictionary
ARCHS = ["transformer_entmax_tiny", "lstm_entmax"]
# a gain of the output's weights: supports of a few words, and of most of them
GAINS = {"narrow": 8.0, "wide": 0.1}


def model_of(arch, gain, alpha=1.5, seed=0):
    torch.manual_seed(seed)
    model = build(arch, seed, TASK, output_alpha=alpha).eval()
    weight, _ = model.decoder.output_weights()
    with torch.no_grad():
        weight.normal_(0, gain)
    return model


def searched(models, switch, monkeypatch, certify=False, prefix=None, **options):
    """The hypotheses, and how many steps listed places only."""
    monkeypatch.setenv(SWITCH, switch)
    narrow = []
    present = SparseStep._present
    monkeypatch.setattr(
        SparseStep, "_present", lambda self, ids: (narrow.append(ids), present(self, ids))
    )
    options = {"beam_size": 4, "max_len_b": 8, "min_len": 0, **options}
    generator = make_sparse(SequenceGenerator(models, WORDS, **options), certify=certify)
    found = generator.generate(models, batch(TASK), prefix_tokens=prefix)
    monkeypatch.undo()
    assert generator.vocab_size == len(WORDS)
    assert "forward_decoder" not in vars(generator.model)
    return found, sum(ids is not None for ids in narrow)


def clear(hypotheses, one):
    """Whether no other hypothesis has its score, up to rounding."""
    return sum(abs(float(h["score"] - one["score"])) < 1e-5 for h in hypotheses) <= 1


def assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert len(ours) == len(theirs)
        for h, other in zip(ours, theirs):
            if clear(theirs, other):
                assert h["tokens"].tolist() == other["tokens"].tolist()
            else:
                continue
            # an entry at the edge of the support: log of a small difference
            torch.testing.assert_close(
                h["positional_scores"], other["positional_scores"], atol=1e-4, rtol=1e-5
            )
            # at alpha 1.5 a score's rounding moves log p by 2 / p ** 0.5 of it: 40 times at -6
            at_the_edge = bool((other["positional_scores"] < -6).any())
            atol = 2e-4 if at_the_edge else 1e-5
            torch.testing.assert_close(h["score"], other["score"], atol=atol, rtol=1e-5)
            torch.testing.assert_close(h["attention"], other["attention"])


OPTIONS = {
    "plain": {},
    "one": {"beam_size": 1},
    "wide beam": {"beam_size": 30},
    "all but padding": {"beam_size": 63},
    "min_len": {"min_len": 5},
    "max_len": {"max_len_b": 1},
    "temperature": {"temperature": 1.7},
    "unknown words": {"unk_penalty": 2.0},
    "more unknown words": {"unk_penalty": -2.0},
    "bigrams": {"no_repeat_ngram_size": 2},
    "unigrams": {"no_repeat_ngram_size": 1},
    "suppressed": {"tokens_to_suppress": ("w7", "w8", "w9")},
    "by probability": {"normalize_scores": False},
    "source length": {"match_source_len": True},
    "certified": {"certify": True},
}


CASES = [("transformer_entmax_tiny", gain, name) for gain in GAINS for name in OPTIONS]
CASES += [("lstm_entmax", "narrow", name) for name in ("plain", "temperature", "certified")]


@pytest.mark.parametrize("arch, gain, name", CASES)
def test_same_hypotheses_as_with_all_words(arch, gain, name, monkeypatch):
    models, options = [model_of(arch, GAINS[gain])], OPTIONS[name]
    expected, none = searched(models, "off", monkeypatch, **options)
    found, narrow = searched(models, "auto", monkeypatch, **options)
    assert none == 0 and (narrow > 0) == (name != "unigrams")
    assert_same(found, expected)
    if options.get("certify"):
        assert_same_certificates(found, expected)


def assert_same_certificates(found, expected):
    for ours, theirs in zip(found, expected):
        ours, theirs = ours[0]["certificate"], theirs[0]["certificate"]
        assert ours.proven == theirs.proven and ours.expansions == theirs.expansions
        assert ours.support == theirs.support
        assert ours.pruned == pytest.approx(theirs.pruned, abs=1e-5)
        assert ours.bound == pytest.approx(theirs.bound, abs=1e-3)


@pytest.mark.parametrize("certify", [False, True])
def test_ensembles_take_the_union_of_their_supports(certify, monkeypatch):
    models = [
        model_of("transformer_entmax_tiny", 1.0, alpha, seed)
        for alpha, seed in ((1.5, 1), (2.0, 2))
    ]
    expected, _ = searched(models, "off", monkeypatch, certify=certify)
    found, narrow = searched(models, "auto", monkeypatch, certify=certify)
    assert narrow > 0
    assert_same(found, expected)


def test_an_ensemble_with_a_softmax_needs_all_words(monkeypatch):
    sparse = model_of("transformer_entmax_tiny", GAINS["narrow"])
    dense = model_of("transformer_entmax_tiny", GAINS["narrow"], alpha=1.0)
    _, narrow = searched([sparse, dense], "auto", monkeypatch)
    assert narrow == 0


def test_forced_prefixes_take_all_words_and_the_rest_few(monkeypatch):
    models = [model_of("transformer_entmax_tiny", GAINS["narrow"])]
    prefix = torch.tensor([[9, 10], [11, WORDS.pad()], [12, WORDS.eos()]])
    expected, _ = searched(models, "off", monkeypatch, prefix=prefix)
    found, narrow = searched(models, "auto", monkeypatch, prefix=prefix)
    assert narrow > 0
    assert_same(found, expected)


def test_weights_that_change_are_read_again(monkeypatch):
    models = [model_of("transformer_entmax_tiny", GAINS["narrow"])]
    generator = make_sparse(SequenceGenerator(models, WORDS, beam_size=4, max_len_b=8))
    generator.generate(models, batch(TASK))
    weight, _ = models[0].decoder.output_weights()
    weight.data.mul_(0.5)  # as optimisers write
    again = generator.generate(models, batch(TASK))
    fresh, _ = searched(models, "off", monkeypatch, min_len=1)
    assert_same(again, fresh)


def test_switched_off_by_the_task(monkeypatch):
    models = [model_of("transformer_entmax_tiny", GAINS["narrow"])]
    generator = make_sparse(SequenceGenerator(models, WORDS, beam_size=4, max_len_b=8))
    steps = []
    monkeypatch.setattr(SparseStep, "_present", lambda self, ids: steps.append(ids))
    generator.sparse_step = "off"  # --sparse-step
    generator.generate(models, batch(TASK))
    assert not steps


@pytest.mark.parametrize("arch", ARCHS)
def test_the_encoders_answer_is_copied_only_when_sentences_leave(arch, monkeypatch):
    """The beams of a sentence have the same one; fairseq copies it at every step."""
    model, rows = model_of(arch, GAINS["narrow"]), []
    stock = model.encoder.reorder_encoder_out

    def reorder(encoder_out, new_order):
        rows.append(len(new_order))
        return stock(encoder_out, new_order)

    model.encoder.reorder_encoder_out = reorder
    searched([model], "off", monkeypatch)
    every_step = rows[:]
    rows.clear()
    searched([model], "auto", monkeypatch)
    assert rows == sorted(set(every_step), reverse=True) and len(rows) < len(every_step)
