"""The beam search with zero probabilities, against brute force over scripted models."""

import math
from argparse import Namespace

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from fairseq.token_generation_constraints import pack_constraints

from fairseq_entmax.decoding import SparseSearch
from tests.decoding.table_model import (
    TableTask,
    dictionary,
    generate,
    length_normalised,
    random_table,
    strings,
    table_model,
)

BEAMS = (1, 5, 10)
WORDS = dictionary("abcd")
EOS = WORDS.eos()
A, B, C = (WORDS.index(letter) for letter in "abc")
# some of fairseq's strategies need more words than 2 beam
MANY_WORDS = dictionary([*"abcd", *(f"w{i}" for i in range(30))])

beams = pytest.mark.parametrize("beam", BEAMS, ids=lambda beam: f"beam{beam}")


def text(hypothesis):
    tokens = hypothesis["tokens"].tolist()
    assert tokens[-1] == EOS and tokens.count(EOS) == 1, "EOS belongs once, at the end"
    return tuple(tokens[:-1])


def assert_real(hypotheses, found):
    """Every hypothesis is a string of the model with the probability that it has."""
    texts = [text(h) for h in hypotheses]
    assert len(set(texts)) == len(texts)
    for hypothesis, string in zip(hypotheses, texts):
        assert hypothesis["positional_scores"].sum().exp().item() == pytest.approx(found[string])
        per_token = math.log(found[string]) / (len(string) + 1)
        assert float(hypothesis["score"]) == pytest.approx(per_token, abs=1e-5)


def assert_none_found(hypotheses, prefix):
    """One truncated hypothesis that says so."""
    (hypothesis,) = hypotheses
    assert float(hypothesis["score"]) == -math.inf
    assert float(hypothesis["positional_scores"][-1]) == -math.inf
    assert text(hypothesis) == prefix


@beams
@pytest.mark.parametrize("seed", range(12))
def test_top_hypothesis_is_brute_force_when_the_beam_covers_the_support(beam, seed):
    table = random_table(WORDS, seed, support=2, end=True, depth=3)
    sentences = [4, 5, 6]
    outputs = generate(WORDS, [table], sentences, beam=beam, max_len_b=6, min_len=0)
    for sentence, hypotheses in zip(sentences, outputs):
        found = strings(WORDS, table, sentence, 6)
        if len(found) <= beam:
            assert_real(hypotheses, found)
            assert {text(h) for h in hypotheses} == set(found)
            scores = length_normalised(WORDS, found)
            assert text(hypotheses[0]) == max(scores, key=scores.get)


@pytest.mark.parametrize("support", (1, 2, 3, 5))
@beams
def test_no_dead_hypothesis_and_no_crash_on_random_models(beam, support):
    # not ended by force: mass may still be open at the maximum length
    for seed in range(15):
        table = random_table(WORDS, 100 + seed, support, end=False, depth=0)
        sentences = [4, 5, 6, 7]
        outputs = generate(WORDS, [table], sentences, beam=beam, max_len_b=4, min_len=0)
        assert len(outputs) == len(sentences)
        for sentence, hypotheses in zip(sentences, outputs):
            if float(hypotheses[0]["score"]) > -math.inf:
                assert_real(hypotheses, strings(WORDS, table, sentence, 4))
            else:
                assert len(hypotheses) == 1


@beams
def test_one_string_only(beam):
    chain = {(): {A: 1.0}, (A,): {B: 1.0}, (A, B): {EOS: 1.0}}
    (hypotheses,) = generate(WORDS, [lambda s, p: chain.get(p, {})], [4], beam=beam, max_len_b=200)
    assert [text(h) for h in hypotheses] == [(A, B)]
    assert float(hypotheses[0]["score"]) == 0


@beams
def test_end_of_sentence_has_probability_zero_at_the_maximum_length(beam):
    def table(sentence, prefix):
        return {A: 0.7, B: 0.3}

    (hypotheses,) = generate(WORDS, [table], [4], beam=beam, max_len_b=3)
    assert_none_found(hypotheses, (A, A, A))


@beams
def test_one_dead_sentence_does_not_disturb_its_batch(beam):
    def table(sentence, prefix):
        if sentence == 5:
            return {A: 1.0}  # never ends
        return {EOS: 0.6, B: 0.4} if prefix else {A: 0.5, B: 0.3, EOS: 0.2}

    alone = [generate(WORDS, [table], [s], beam=beam, max_len_b=5)[0] for s in (4, 6)]
    first, dead, last = generate(WORDS, [table], [4, 5, 6], beam=beam, max_len_b=5)
    assert_none_found(dead, (A,) * 5)
    for together, single in zip((first, last), alone):
        assert [text(h) for h in together] == [text(h) for h in single]
        assert [float(h["score"]) for h in together] == [float(h["score"]) for h in single]


@beams
def test_only_the_empty_string_under_a_minimum_length(beam):
    (hypotheses,) = generate(WORDS, [lambda s, p: {EOS: 1.0}], [4], beam=beam, min_len=1)
    assert_none_found(hypotheses, ())
    (hypotheses,) = generate(WORDS, [lambda s, p: {EOS: 1.0}], [4], beam=beam, min_len=0)
    assert [text(h) for h in hypotheses] == [()]


@beams
def test_prefix_outside_the_support(beam):
    def table(sentence, prefix):
        return {EOS: 0.5, A: 0.5} if prefix else {A: 1.0}

    inside, outside = torch.tensor([[A]]), torch.tensor([[B]])
    (hypotheses,) = generate(WORDS, [table], [4], inside, beam=beam, max_len_b=4)
    assert text(hypotheses[0]) == (A,)
    # the search goes on after it, and says that the string is impossible, and where
    (hypotheses,) = generate(WORDS, [table], [4], outside, beam=beam, max_len_b=4)
    (hypothesis,) = hypotheses
    assert text(hypothesis) == (B,) and float(hypothesis["score"]) == -math.inf
    assert hypothesis["positional_scores"].tolist() == [-math.inf, pytest.approx(math.log(0.5))]


@beams
def test_prefix_partly_outside_the_support(beam):
    # a batch in which the second and the fourth sentence have an impossible word
    tables = {
        4: {(): {A: 1.0}, (A,): {B: 1.0}},
        5: {(): {A: 1.0}, (A,): {B: 1.0}, (A, C): {A: 0.6, B: 0.4}},
        6: {(): {EOS: 1.0}},
        7: {(): {EOS: 1.0}, (C,): {A: 1.0}},
    }

    def table(sentence, prefix):
        return tables[sentence].get(prefix, {EOS: 1.0})

    pad = WORDS.pad()
    prefix = torch.tensor([[A, B], [A, C], [EOS, pad], [C, EOS]])
    outputs = generate(WORDS, [table], [4, 5, 6, 7], prefix, beam=beam, max_len_b=4, min_len=0)
    assert [[text(h) for h in hypotheses] for hypotheses in outputs] == [
        [(A, B)],
        [(A, C, A)],
        [()],
        [(C,)],
    ]
    assert [float(h[0]["score"]) for h in outputs] == [0, -math.inf, 0, -math.inf]
    zeros = [h[0]["positional_scores"] == -math.inf for h in outputs]
    assert [z.nonzero()[:, 0].tolist() for z in zeros] == [[], [1], [], [0, 1]]


@beams
def test_no_answer_after_an_impossible_prefix(beam):
    (hypotheses,) = generate(
        WORDS, [lambda s, p: {A: 1.0}], [4], torch.tensor([[B]]), beam=beam, max_len_b=3
    )
    assert len(hypotheses) == 1 and float(hypotheses[0]["score"]) == -math.inf


@beams
def test_prefix_with_end_of_sentence(beam):
    def table(sentence, prefix):
        return {EOS: 0.5, A: 0.5} if prefix else {A: 1.0}

    prefix = torch.tensor([[A, EOS], [A, A]])
    ended, longer = generate(WORDS, [table], [4, 5], prefix, beam=beam, max_len_b=4)
    assert {text(h) for h in ended} == {(A,)}
    assert text(longer[0])[:2] == (A, A)


@beams
def test_ngram_blocking_outside_the_support(beam):
    def table(sentence, prefix):
        return {A: 1.0} if len(prefix) < 4 else {EOS: 1.0}

    (hypotheses,) = generate(WORDS, [table], [4], beam=beam, max_len_b=6, no_repeat_ngram_size=2)
    assert_none_found(hypotheses, (A, A))


@beams
@pytest.mark.parametrize("kind", ("ordered", "unordered"))
def test_constraint_outside_the_support(beam, kind):
    def table(sentence, prefix):
        return {EOS: 0.5, A: 0.5} if prefix else {A: 0.6, C: 0.4}

    def constrained(letter):
        packed = pack_constraints([[torch.tensor([letter])]])
        return generate(
            MANY_WORDS, [table], [4], packed=packed, beam=beam, max_len_b=4, constraints=kind
        )[0]

    inside, outside = constrained(C), constrained(B)
    assert C in text(inside[0]) and float(inside[0]["score"]) > -math.inf
    assert len(outside) == 1 and float(outside[0]["score"]) == -math.inf


@beams
def test_match_source_len(beam):
    # sources have two tokens with EOS: outputs of at most that length are real
    def table(sentence, prefix):
        return {EOS: 0.5, A: 0.5}

    (hypotheses,) = generate(WORDS, [table], [4], beam=beam, match_source_len=True)
    assert all(float(h["score"]) > -math.inf for h in hypotheses)
    assert all(len(text(h)) <= 2 for h in hypotheses)


@beams
@pytest.mark.parametrize(
    "options",
    ({}, {"sampling_topk": 2}, {"sampling_topp": 0.7}),
    ids=("all", "topk", "topp"),
)
def test_sampling_gives_strings_of_the_model(beam, options):
    torch.manual_seed(0)
    for seed in range(8):
        table = random_table(WORDS, 50 + seed, support=3, end=seed % 2 == 0, depth=3)
        found = [strings(WORDS, table, s, 4) for s in (4, 5, 6)]
        outputs = generate(
            WORDS, [table], [4, 5, 6], beam=beam, max_len_b=4, min_len=0, sampling=True, **options
        )
        for hypotheses, known in zip(outputs, found):
            assert 1 <= len(hypotheses) <= beam
            for hypothesis in hypotheses:
                real = float(hypothesis["score"]) > -math.inf
                assert (text(hypothesis) in known) == real


def test_samples_have_the_model_s_frequencies():
    torch.manual_seed(0)
    table = random_table(WORDS, 3, support=3, end=True, depth=2)
    found = strings(WORDS, table, 4, 4)
    counts = dict.fromkeys(found, 0)
    rounds, beam = 150, 7
    for _ in range(rounds):
        (hypotheses,) = generate(
            WORDS, [table], [4], beam=beam, max_len_b=4, min_len=0, sampling=True
        )
        for hypothesis in hypotheses:
            counts[text(hypothesis)] += 1
    n = rounds * beam
    for string, p in found.items():
        assert abs(counts[string] - n * p) < 5 * math.sqrt(n * p * (1 - p)) + 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {A: 0.5, B: 0.3, C: 0.2}),
        ({"sampling_topk": 2}, {A: 5 / 8, B: 3 / 8}),
        ({"sampling_topk": 6}, {A: 0.5, B: 0.3, C: 0.2}),
        ({"sampling_topp": 0.4}, {A: 1.0}),
        ({"sampling_topp": 0.7}, {A: 5 / 8, B: 3 / 8}),
    ],
    ids=("all", "topk", "topk-above-the-support", "topp-one", "topp-two"),
)
def test_truncated_samples_have_renormalised_frequencies(options, expected):
    def table(sentence, prefix):
        return {EOS: 1.0} if prefix else {A: 0.5, B: 0.3, C: 0.2}

    def draw(seed):
        torch.manual_seed(seed)
        outputs = generate(WORDS, [table], [4] * 100, beam=6, max_len_b=2, sampling=True, **options)
        return [text(hypothesis)[0] for hypotheses in outputs for hypothesis in hypotheses]

    drawn = draw(0)
    assert drawn == draw(0) and (drawn != draw(1) or len(expected) == 1)
    for letter, p in {A: 0.0, B: 0.0, C: 0.0, **expected}.items():
        n = len(drawn)
        assert abs(drawn.count(letter) - n * p) <= 4 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("beam", (2, 4, 6))
def test_diverse_beam_emits_every_string_once(beam):
    for seed in range(10):
        table = random_table(WORDS, 70 + seed, support=3, end=True, depth=3)
        (hypotheses,) = generate(
            WORDS, [table], [4], beam=beam, max_len_b=5, min_len=0, diverse_beam_groups=2
        )
        known = strings(WORDS, table, 4, 5)
        assert all(text(h) in known for h in hypotheses)


@beams
def test_diverse_siblings(beam):
    for seed in range(10):
        table = random_table(MANY_WORDS, 90 + seed, support=3, end=True, depth=3)
        (hypotheses,) = generate(
            MANY_WORDS, [table], [4], beam=beam, max_len_b=5, min_len=0, diversity_rate=0.5
        )
        known = strings(MANY_WORDS, table, 4, 5)
        assert all(text(h) in known for h in hypotheses)


@beams
def test_living_hypotheses_are_not_displaced(beam):
    # the first step has two living candidates and many dead ones; the long string wins
    def table(sentence, prefix):
        if not prefix:
            return {A: 0.9, EOS: 0.1}
        return {B: 1.0} if len(prefix) < 6 else {EOS: 1.0}

    (hypotheses,) = generate(WORDS, [table], [4], beam=beam, max_len_b=20, min_len=0)
    assert text(hypotheses[0]) == (A, B, B, B, B, B)
    assert len(hypotheses) == min(beam, 2)


@beams
@pytest.mark.parametrize("kind", ("hard", "soft"))
def test_alignment(beam, kind):
    table = random_table(WORDS, 7, support=2, end=True, depth=3)
    outputs = generate(
        WORDS, [table], [4, 5], beam=beam, max_len_b=5, min_len=0, print_alignment=kind
    )
    for sentence, hypotheses in zip((4, 5), outputs):
        assert_real(hypotheses, strings(WORDS, table, sentence, 5))
        assert all(len(h["alignment"]) > 0 for h in hypotheses if text(h))


@beams
def test_ensemble_averages_probabilities(beam):
    # each model vetoes a word of the other; the average does not
    def first(sentence, prefix):
        return {EOS: 1.0} if prefix else {A: 0.6, B: 0.4}

    def second(sentence, prefix):
        return {EOS: 1.0} if prefix else {B: 0.7, C: 0.3}

    (hypotheses,) = generate(WORDS, [first, second], [4], beam=beam, max_len_b=4)
    assert text(hypotheses[0]) == (B,)
    assert hypotheses[0]["positional_scores"].sum().exp().item() == pytest.approx(0.55)
    assert len(hypotheses) == min(beam, 3)


@beams
def test_dense_models_keep_the_stock_search(beam):
    """Outputs of a softmax model are stock fairseq's, adapted or not."""
    words = MANY_WORDS

    def table(sentence, prefix):
        g = torch.Generator().manual_seed(hash((sentence, prefix)) % (1 << 62))
        p = (torch.randn(len(words), generator=g) * 2).softmax(0)
        return dict(enumerate(p.tolist()))

    task = TableTask(words)
    sample = {
        "id": torch.arange(3),
        "net_input": {
            "src_tokens": torch.tensor([[4, 2], [5, 2], [6, 2]]),
            "src_lengths": torch.tensor([2, 2, 2]),
        },
    }
    results = []
    for alpha in (1.0, 1.5):
        model = table_model(words, table, alpha)
        generator = task.build_generator([model], Namespace(beam=beam, max_len_b=8))
        assert isinstance(generator, SequenceGenerator)
        assert isinstance(generator.search, SparseSearch) == (alpha > 1)
        results.append(task.inference_step(generator, [model], sample))
    for stock, adapted in zip(*results):
        assert [h["tokens"].tolist() for h in stock] == [h["tokens"].tolist() for h in adapted]
        assert [float(h["score"]) for h in stock] == [float(h["score"]) for h in adapted]
