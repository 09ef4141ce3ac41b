"""Exact search against brute force: random tables, and networks of every kind."""

import math
import random
from argparse import Namespace

import pytest
import torch

from fairseq_entmax.decoding import ExactSearch
from fairseq_entmax.decoding.frontier import Frontier, Prefixes
from tests import builders
from tests.decoding.table_model import (
    TableTask,
    dictionary,
    random_table,
    strings,
    table_model,
    table_sample,
)

WORDS = dictionary("abcd")
EOS = WORDS.eos()
A, B, C = (WORDS.index(letter) for letter in "abc")


def exact_generator(task, models, beam=2, exact=None, **options):
    generator = task.build_generator(models, Namespace(beam=beam, **options))
    return ExactSearch(generator, **(exact or {}))


def search(tables, sentences, prefix_tokens=None, **options):
    task, models = TableTask(WORDS), [table_model(WORDS, table) for table in tables]
    generator = exact_generator(task, models, **options)
    sample = table_sample(WORDS, sentences)
    return task.inference_step(generator, models, sample, prefix_tokens=prefix_tokens)


def text(hypothesis):
    tokens = hypothesis["tokens"].tolist()
    assert tokens[-1] == EOS
    return tuple(tokens[:-1])


def is_real(hypotheses):
    return float(hypotheses[0]["score"]) > -math.inf


def assert_most_probable(hypotheses, found, nbest, rel=1e-5):
    """The n best of the whole distribution, up to ties and rounding, and a true certificate."""
    certificate = hypotheses[0]["certificate"]
    if not found:
        assert not is_real(hypotheses) and certificate.exact and certificate.complete
        return
    probs = [found[text(h)] for h in hypotheses]
    assert len({text(h) for h in hypotheses}) == len(hypotheses)
    best = sorted(found.values(), reverse=True)[:nbest]
    assert probs == pytest.approx(best, rel=rel)
    for hypothesis, p in zip(hypotheses, probs):
        assert float(hypothesis["score"]) == pytest.approx(math.log(p), abs=rel)
        assert hypothesis["positional_scores"].sum().item() == pytest.approx(math.log(p), abs=rel)
    assert certificate.search == "exact" and certificate.exact
    assert certificate.proven == len(hypotheses)
    # a prefix left out may have no allowed end, but then there are n better strings
    assert certificate.complete <= (len(hypotheses) == len(found))
    assert certificate.complete or len(found) >= nbest
    assert certificate.mass == pytest.approx(sum(probs), abs=1e-5)
    # mass + pruned is what the limits allow, with prefixes that have no allowed end
    assert sum(found.values()) - 1e-5 < certificate.mass + certificate.pruned < 1 + 1e-5


def test_the_optimum_of_500_models():
    needed = 0
    for seed in range(500):
        rng = random.Random(seed)
        depth, max_len = rng.choice((2, 3, 4)), rng.choice((3, 4))
        table = random_table(WORDS, seed, rng.choice((2, 3, 5)), rng.random() < 0.7, depth)
        nbest, min_len = rng.choice((1, 1, 2, 7)), rng.choice((0, 0, 1, 2))
        options = {"beam": rng.choice((1, 2, 4)), "max_len_b": max_len, "min_len": min_len}
        outputs = search([table], [4, 5], exact={"nbest": nbest}, **options)
        for sentence, hypotheses in zip((4, 5), outputs):
            found = strings(WORDS, table, sentence, max_len)
            found = {s: p for s, p in found.items() if len(s) >= min_len}
            assert_most_probable(hypotheses, found, nbest)
            needed += hypotheses[0]["certificate"].pruned > 0
    assert needed > 100, "the trees are too small to leave anything out"


def test_a_beam_that_errs_is_put_right():
    table = {(): {A: 0.6, B: 0.4}, (A,): {A: 0.5, EOS: 0.5}}
    (hypotheses,) = search([lambda s, p: table.get(p, {EOS: 1.0})], [4], beam=1, max_len_b=4)
    assert text(hypotheses[0]) == (B,) and hypotheses[0]["certificate"].exact


def test_limits_are_those_of_the_beam():
    # forced prefixes, blocked n-grams and a source without an answer, in one batch
    for seed in range(40):
        table = random_table(WORDS, seed, 3, True, 3)
        for no_repeat, prefix in ((2, [[5, 1]]), (0, [[A, 1]]), (0, [[A, EOS]]), (2, [[A, B]])):
            forced = [p for p in prefix[0] if p != WORDS.pad()]
            hypotheses = search(
                [table],
                [4],
                torch.tensor(prefix),
                exact={"nbest": 50},
                max_len_b=4,
                min_len=0,
                no_repeat_ngram_size=no_repeat,
            )[0]
            found = {
                s: p
                for s, p in strings(WORDS, table, 4, 4).items()
                if len(set(zip(s, s[1:]))) == max(len(s) - 1, 0) or not no_repeat
                if list((*s, EOS)[: len(forced)]) == forced
            }
            if found:
                assert_most_probable(hypotheses, found, 50)
            else:
                assert len(hypotheses) == 1 and not is_real(hypotheses)


def test_an_impossible_prefix_is_taken_as_given():
    # greedy search goes astray after it, exact search does not
    table = {(): {A: 1.0}, (C,): {A: 0.6, B: 0.4}, (C, A): {A: 0.5, EOS: 0.5}}
    (hypotheses,) = search(
        [lambda s, p: table.get(p, {EOS: 1.0})], [4], torch.tensor([[C]]), beam=1, max_len_b=4
    )
    (hypothesis,) = hypotheses
    assert text(hypothesis) == (C, B) and hypothesis["certificate"].exact
    assert float(hypothesis["score"]) == -math.inf
    expected = [-math.inf, pytest.approx(math.log(0.4)), 0.0]
    assert hypothesis["positional_scores"].tolist() == expected


def test_enumeration_until_a_mass():
    for seed in range(25):
        table = random_table(WORDS, seed, 4, True, 4)
        found = strings(WORDS, table, 4, 4)
        for mass in (0.5, 0.9, 1.0):
            (hypotheses,) = search(
                [table], [4], exact={"nbest": 10**6, "mass": mass}, max_len_b=4, min_len=0
            )
            probs = [found[text(h)] for h in hypotheses]
            best = sorted(found.values(), reverse=True)
            assert probs == pytest.approx(best[: len(probs)], rel=1e-5)
            assert sum(probs) >= mass - 1e-5
            assert mass == 1 or sum(probs[:-1]) < mass + 1e-5
        assert len(probs) == len(found)


def wide(sentence, prefix):
    """Every string of four letters is possible; the beam of 1 goes astray."""
    g = torch.Generator().manual_seed(hash((sentence, prefix)) % (1 << 62))
    if len(prefix) == 4:
        return {EOS: 1.0}
    letters = range(WORDS.nspecial, len(WORDS))
    return dict(zip(letters, (torch.rand(len(letters), generator=g) + 1).softmax(0).tolist()))


@pytest.mark.parametrize("budget", ({"max_expansions": 7}, {"max_memory": 500}))
def test_a_budget_that_does_not_suffice_is_admitted(budget):
    admitted = 0
    for sentence in range(4, 24):
        found = strings(WORDS, wide, sentence, 4)
        (hypotheses,) = search([wide], [sentence], beam=1, exact=budget, max_len_b=6)
        (beam,) = search([wide], [sentence], beam=1, exact={"max_expansions": 1}, max_len_b=6)
        certificate = hypotheses[0]["certificate"]
        p, most = found[text(hypotheses[0])], max(found.values())
        assert p >= found[text(beam[0])] * (1 - 1e-6)
        assert math.exp(certificate.bound) >= most * (1 - 1e-6) or certificate.exact
        assert not certificate.exact or p >= most * (1 - 1e-6)
        admitted += not certificate.exact
        beam_steps = 5
        assert certificate.expansions <= beam_steps + budget.get("max_expansions", 1000)
    assert admitted > 5


def test_a_budget_is_kept_for_each_sentence_alone():
    sentences = list(range(4, 12))
    options = {"beam": 1, "exact": {"max_expansions": 30}, "max_len_b": 6}
    together = search([wide], sentences, **options)
    for sentence, hypotheses in zip(sentences, together):
        (alone,) = search([wide], [sentence], **options)
        assert text(alone[0]) == text(hypotheses[0])
        assert alone[0]["certificate"].exact == hypotheses[0]["certificate"].exact
        assert hypotheses[0]["certificate"].expansions <= 5 + 30


@pytest.mark.parametrize(
    "options",
    ({"nbest": 0}, {"max_expansions": 0}, {"max_memory": 0}),
    ids=lambda options: next(iter(options)),
)
def test_budgets_of_nothing_are_refused(options):
    with pytest.raises(ValueError, match="at least 1"):
        search([wide], [4], exact=options)


def test_alignment_is_refused():
    with pytest.raises(ValueError, match="--print-alignment"):
        search([wide], [4], print_alignment="hard")


# --- networks ------------------------------------------------------------------------------------

ARCHS = {
    # scores far enough apart for its source to matter
    "transformer": ("transformer_entmax_tiny", {"attention_temperature": 1.0}),
    "lstm": ("lstm_entmax", {"encoder_bidirectional": True}),
    "sparsemax": ("transformer_entmax_tiny", {"output_alpha": 2.0}),
    "softmax": ("transformer_entmax_tiny", {"output_alpha": 1.0}),
}

# so that a model drawn at random has some dozens of strings
TEMPERATURES = {"transformer": 1.0, "lstm": 40.0, "sparsemax": 3.0, "softmax": 1.0}


class SmallTask(TableTask):
    def __init__(self):
        super().__init__(builders.dictionary(3))


def network(name):
    arch, flags = ARCHS[name]
    model = builders.build(arch, task=SmallTask(), **flags)
    if name != "softmax":
        builders.sharpen(model)
    return model


def all_strings(models, sample, row, max_len, temperature):
    """{string: p} of one sentence by whole forward passes; of several models the mean of p."""
    words = models[0].decoder.dictionary
    net_input = sample["net_input"]
    n = int(net_input["src_lengths"][row])
    src_tokens = net_input["src_tokens"][row : row + 1, -n:]
    found, prefixes = {}, [((), 0.0)]
    for step in range(max_len + 1):
        previous = torch.tensor([[words.eos(), *prefix] for prefix, _ in prefixes])
        sources = src_tokens.expand(len(prefixes), -1)
        lengths = torch.full((len(prefixes),), n)
        outputs = [model(sources, lengths, previous) for model in models]
        probs = [
            model.get_normalized_probs((scores / temperature, rest), log_probs=False)[:, -1]
            for model, (scores, rest) in zip(models, outputs)
        ]
        probs = torch.stack(probs).double().mean(0)
        probs[:, words.pad()] = 0
        grown = []
        for (prefix, log_prob), row_probs in zip(prefixes, probs.tolist()):
            for token, p in enumerate(row_probs):
                if p > 0 and token == words.eos():
                    found[prefix] = math.exp(log_prob + math.log(p))
                elif p > 0 and step < max_len:
                    grown.append(((*prefix, token), log_prob + math.log(p)))
        prefixes = grown
        if not prefixes:
            break
    return found


@pytest.mark.parametrize(
    "names",
    [["transformer"], ["lstm"], ["sparsemax"], ["softmax"], ["transformer", "lstm"]],
    ids="+".join,
)
def test_networks(names):
    task, models = SmallTask(), [network(name) for name in names]
    sample = builders.batch(task, lengths=(5, 3, 4, 4))
    max_len, temperature = 4, TEMPERATURES[names[0]]
    with torch.no_grad():
        truth = [all_strings(models, sample, row, max_len, temperature) for row in range(4)]
    assert max(map(len, truth)) > 20
    for nbest in (1, 4, 100):
        generator = exact_generator(
            task,
            models,
            exact={"nbest": nbest},
            max_len_b=max_len,
            min_len=0,
            temperature=temperature,
        )
        for found, hypotheses in zip(truth, task.inference_step(generator, models, sample)):
            # p of a word near the threshold is rounded by much more than its last digit
            assert_most_probable(hypotheses, found, nbest, rel=5e-3)


def test_rows_of_a_call_do_not_mix_sentences():
    """Every split of the work gives the same strings: rows keep their source and their state."""
    task, models = SmallTask(), [network("transformer")]
    sample = builders.batch(task, lengths=(5, 3, 4, 4))
    answers = []
    for max_memory in (1 << 30, 1 << 18):
        generator = exact_generator(
            task, models, exact={"nbest": 12, "max_memory": max_memory}, max_len_b=4, min_len=0
        )
        answers.append(task.inference_step(generator, models, sample))
    for whole, split in zip(*answers):
        scores = [[float(h["score"]) for h in hypotheses] for hypotheses in (whole, split)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_only_the_short_sentences_are_unproven(name):
    """The beam proves the longest sentence of the batch, which then is no part of the search."""
    task, model = SmallTask(), network(name)
    sample = builders.batch(task, lengths=(9, 3, 4, 4))
    generator = exact_generator(task, [model], max_len_b=4, min_len=0, temperature=20.0)
    prove = generator.beam.generate

    def prove_first(*args, **kwargs):
        found = prove(*args, **kwargs)
        for hypotheses, proven in zip(found, (1, 0, 0, 0)):
            certificate = hypotheses[0]["certificate"]
            hypotheses[0]["certificate"] = certificate._replace(proven=proven, complete=False)
        return found

    generator.beam.generate = prove_first
    found = task.inference_step(generator, [model], sample)
    assert all(hypotheses[0]["certificate"].exact for hypotheses in found[1:])


@torch.no_grad()
@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_children_keep_their_source_whatever_their_number(name):
    """fairseq's reordering leaves the source alone when the number of rows stays the same."""
    task, model = SmallTask(), network(name)
    sample = builders.batch(task, lengths=(5, 5, 5, 5))
    warm = TEMPERATURES[name]
    beam = exact_generator(task, [model], max_len_b=4, min_len=0, temperature=warm).beam
    net_input, letter = sample["net_input"], len(task.words) - 1
    for n in range(2, 8):
        frontier = Frontier(beam, sample, [0, 1, 2, 3], None, None, 1 << 30)
        parents, _ = frontier._decode(frontier.roots([0, 1, 2, 3]))
        sentence = torch.arange(n).flip(0) % 4
        zeros = torch.zeros(n, dtype=torch.float64)
        children = Prefixes(parents, sentence, torch.full((n,), letter), zeros, sentence)
        _, found = frontier._decode(children)
        previous = torch.tensor([[task.words.eos(), letter]] * n)
        scores, rest = model(net_input["src_tokens"][sentence], torch.full((n,), 6), previous)
        expected = model.get_normalized_probs((scores / warm, rest), log_probs=False)[:, -1]
        assert (expected[0] - expected[1]).abs().max() > 1e-2, "the source does not matter"
        expected[:, task.words.pad()] = 0
        torch.testing.assert_close(found.exp(), expected, atol=1e-4, rtol=0)
