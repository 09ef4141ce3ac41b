"""A sparse language model beside a translation model: a veto where its p = 0, and never NaN."""

import functools
import math

import pytest
import torch
from fairseq.models import FairseqLanguageModel
from fairseq.sequence_generator import SequenceGenerator

from fairseq_entmax.decoding import ExactSearch, SparseSearch
from tests.builders import Task, batch, build, sharpen
from tests.decoding.table_model import (
    TableDecoder,
    dictionary,
    random_table,
    strings,
    table_model,
    table_sample,
)

WORDS = dictionary("abcd")
SENTENCES = [4, 5, 6]
BEAM, MAX_LEN = 30, 4
LANGUAGE = random_table(WORDS, 9, support=4, end=True, depth=3)


class LanguageDecoder(TableDecoder):
    """p(next | prefix) at every position, as a language model without incremental state."""

    def forward(self, prev_output_tokens, encoder_out=None, **kwargs):
        steps = range(1, prev_output_tokens.size(1) + 1)
        unconditional = torch.zeros(len(prev_output_tokens), 1, dtype=torch.long)
        source = {"encoder_out": [unconditional]}
        at_each = [
            super(LanguageDecoder, self).forward(prev_output_tokens[:, :n], source) for n in steps
        ]
        return torch.cat([probs for probs, _ in at_each], dim=1), {}


def language_model(alpha=1.5):
    model = FairseqLanguageModel(LanguageDecoder(WORDS, LANGUAGE))
    model.decoder.output_alpha = alpha
    return model


def translation_table(dense):
    if not dense:
        return random_table(WORDS, 3, support=4, end=True, depth=3)

    @functools.lru_cache(maxsize=None)
    def table(sentence, prefix):
        logits = torch.randn(5, generator=torch.Generator().manual_seed(sentence + 7 * len(prefix)))
        return dict(zip([WORDS.eos(), *range(4, 8)], logits.softmax(0).tolist()))

    return table


def search(table, alpha, weight, **options):
    model = table_model(WORDS, table, alpha)
    generator = SequenceGenerator(
        [model],
        WORDS,
        **{"beam_size": BEAM, "max_len_b": MAX_LEN, "max_len_a": 0, "min_len": 0, **options},
        lm_model=language_model(),
        lm_weight=weight,
    )
    return generator, generator.generate([model], table_sample(WORDS, SENTENCES))


def fused(table, sentence, weight):
    """{string: (log p + weight * log q) / length} of all strings that both models allow."""
    allowed = strings(WORDS, table, sentence, MAX_LEN)
    spoken = strings(WORDS, LANGUAGE, 0, MAX_LEN)
    return {
        string: (math.log(p) + weight * math.log(spoken[string])) / (len(string) + 1)
        for string, p in allowed.items()
        if string in spoken
    }


def answers(hypotheses):
    return {tuple(h["tokens"].tolist()[:-1]): float(h["score"]) for h in hypotheses}


@pytest.mark.parametrize("dense", [False, True], ids=["sparse translation", "softmax translation"])
@pytest.mark.parametrize("weight", [0.3, 2.0])
def test_all_strings_of_both_models_are_found_and_no_other(dense, weight):
    table = translation_table(dense)
    _, found = search(table, 1.0 if dense else 1.5, weight)
    vetoed = 0
    for sentence, hypotheses in zip(SENTENCES, found):
        expected = fused(table, sentence, weight)
        vetoed += len(strings(WORDS, table, sentence, MAX_LEN)) - len(expected)
        if expected:
            # a beam as wide as this holds them all
            assert answers(hypotheses) == pytest.approx(expected, abs=1e-5)
        else:
            (none,) = hypotheses
            assert none["score"] == -math.inf
    assert vetoed > 0


@pytest.mark.parametrize("dense", [False, True], ids=["sparse translation", "softmax translation"])
def test_weight_zero_is_no_language_model(dense):
    table, alpha = translation_table(dense), 1.0 if dense else 1.5
    generator, found = search(table, alpha, 0.0)
    assert generator.lm_model is None
    model = table_model(WORDS, table, alpha)
    alone = SequenceGenerator(
        [model], WORDS, beam_size=BEAM, max_len_b=MAX_LEN, max_len_a=0, min_len=0
    )
    expected = alone.generate([model], table_sample(WORDS, SENTENCES))
    assert [answers(h) for h in found] == [answers(h) for h in expected]
    assert isinstance(generator.search, SparseSearch) == (not dense)


def test_a_language_model_that_forbids_everything_leaves_no_string():
    def other(sentence, prefix):
        first = max(LANGUAGE(0, ()), key=LANGUAGE(0, ()).get)
        words = [word for word in range(4, 8) if word not in LANGUAGE(0, ())]
        assert words and first
        return {words[0]: 1.0} if not prefix else {WORDS.eos(): 1.0}

    _, found = search(other, 1.5, 1.0)
    assert [[h["score"] for h in hypotheses] for hypotheses in found] == [[-math.inf]] * 3


@pytest.mark.parametrize("weight", [-0.5, math.nan, math.inf])
def test_a_weight_that_makes_zeros_infinitely_good_is_refused(weight):
    with pytest.raises(ValueError, match=rf"--lm-weight must be a number >= 0.*got {weight}"):
        search(translation_table(False), 1.5, weight)


def test_a_softmax_language_model_is_fairseqs_affair():
    model = table_model(WORDS, translation_table(True), 1.0)
    generator = SequenceGenerator([model], WORDS, lm_model=language_model(1.0), lm_weight=-0.5)
    assert generator.lm_weight == -0.5 and not isinstance(generator.search, SparseSearch)


def test_exact_search_refuses_it_with_the_reason():
    generator, _ = search(translation_table(False), 1.5, 1.0)
    with pytest.raises(ValueError, match="--lm-path"):
        ExactSearch(generator)


def test_twins_together_score_as_their_distributions_say():
    """A translation twin and a language-model twin: each hypothesis, scored by both at once."""
    task = Task()
    words, weight = task.target_dictionary, 0.4
    model = sharpen(build("transformer_tiny_entmax", task=task))
    task.output_dictionary = words
    small = {"decoder_embed_dim": 16, "decoder_layers": 1, "decoder_attention_heads": 2}
    language = sharpen(
        build(
            *("transformer_lm_entmax", 8, task),
            **{**small, "decoder_input_dim": 16, "decoder_output_dim": 16},
            max_target_positions=64,
        )
    )
    generator = SequenceGenerator(
        [model], words, beam_size=6, max_len_b=6, lm_model=language, lm_weight=weight
    )
    sample = batch(task)
    net_input = sample["net_input"]
    n_zeros = 0
    for row, hypotheses in enumerate(generator.generate([model], sample)):
        for hypothesis in hypotheses:
            tokens = hypothesis["tokens"]
            shifted = torch.cat([tokens.new_tensor([words.eos()]), tokens[:-1]])[None]
            with torch.no_grad():
                scores = model(
                    net_input["src_tokens"][row : row + 1],
                    net_input["src_lengths"][row : row + 1],
                    shifted,
                )
                p = model.get_normalized_probs(scores, log_probs=False)[0]
                q = language.get_normalized_probs(language(shifted), log_probs=False)[0]
            n_zeros += int((q == 0).sum())
            total = p.log() + weight * q.log()
            expected = total.gather(1, tokens[:, None])[:, 0]
            if hypothesis["score"] > -math.inf:
                torch.testing.assert_close(
                    hypothesis["positional_scores"], expected, atol=1e-4, rtol=1e-4
                )
    assert n_zeros > 0
