"""Minimum Bayes risk against the expectations under the whole distribution."""

import itertools
import math
import random
from argparse import Namespace

import pytest
import torch

from fairseq_entmax.decoding import ExactSearch, MinimumBayesRisk
from fairseq_entmax.decoding.mbr import choose
from fairseq_entmax.scoring.utility import UTILITIES, utility
from fairseq_entmax.tasks.sparse_translation import SparseTranslationConfig, SparseTranslationTask
from tests.decoding.table_model import (
    TableTask,
    dictionary,
    random_table,
    strings,
    table_model,
    table_sample,
)

WORDS = dictionary("abcd")


def symbols(tokens):
    return tuple(WORDS[token] for token in tokens)


def decide(table, name, nbest=1000, mass=1.0, samples=0, max_expansions=10000):
    """The hypotheses of one sentence, behind a beam of 1, which errs often."""
    task, models = TableTask(WORDS), [table_model(WORDS, table)]
    options = {"beam": 1, "min_len": 0, "max_len_b": 3}
    generator = task.build_generator(models, Namespace(**options))
    exact = ExactSearch(generator, nbest=nbest, mass=mass, max_expansions=max_expansions)
    sampler = None
    if samples:
        drawn = {**options, "beam": samples, "sampling": True}
        sampler = task.build_generator(models, Namespace(**drawn))
    search = MinimumBayesRisk(exact, utility(name), symbols, sampler, samples)
    return task.inference_step(search, models, table_sample(WORDS, [4]))[0]


def whole(table):
    """Every allowed string with its share."""
    found = strings(WORDS, table, 4, 3)
    total = math.fsum(found.values())
    return {symbols(s): p / total for s, p in found.items()}


def expected(name, answer, distribution):
    u = utility(name)
    return math.fsum(p * u(answer, y) for y, p in distribution.items())


def text(hypothesis):
    return symbols(hypothesis["tokens"].tolist()[:-1])


@pytest.mark.parametrize("name", UTILITIES)
def test_of_the_whole_list_it_is_the_best(name):
    changed = 0
    for seed in range(25):
        table = random_table(WORDS, seed, 3, True, 3)
        hypotheses, distribution = decide(table, name), whole(table)
        values = {s: expected(name, s, distribution) for s in distribution}
        decision = hypotheses[0]["decision"]
        assert values[text(hypotheses[0])] == pytest.approx(max(values.values()), abs=1e-5)
        assert decision.expected == pytest.approx(max(values.values()), abs=1e-5)
        assert not decision.sampled and decision.gain >= 0
        order = [values[text(h)] for h in hypotheses]
        assert order == pytest.approx(sorted(order, reverse=True), abs=1e-5)
        changed += decision.expected > decision.beam
    assert changed > 5


@pytest.mark.parametrize("name", ["levenshtein", "accuracy", "bleu"])
def test_of_a_part_it_is_never_below_the_beam(name):
    partial = gained = 0
    for seed in range(60):
        rng = random.Random(seed)
        table = random_table(WORDS, seed, 5, True, 3)
        options = {"nbest": rng.choice((4, 1000, 1000)), "mass": rng.choice((0.5, 0.9, 0.97))}
        first = decide(table, name, **options)[0]
        distribution, decision = whole(table), first["decision"]
        beam = table_beam(table)
        gain = expected(name, text(first), distribution) - expected(name, beam, distribution)
        assert gain >= decision.gain - 1e-5 and decision.gain >= 0, seed
        partial += decision.mass < 0.95
        gained += decision.gain > 0
    assert partial > 10 and gained > 2


def table_beam(table):
    """The answer of a beam of 1 by probability."""
    task, models = TableTask(WORDS), [table_model(WORDS, table)]
    options = Namespace(beam=1, min_len=0, max_len_b=3, unnormalized=True)
    generator = task.build_generator(models, options)
    return text(task.inference_step(generator, models, table_sample(WORDS, [4]))[0][0])


def test_the_right_string_is_the_most_probable():
    for seed in range(20):
        table = random_table(WORDS, seed, 4, True, 3)
        distribution = whole(table)
        best = text(decide(table, "accuracy")[0])
        assert distribution[best] == pytest.approx(max(distribution.values()), rel=1e-5)


def test_what_the_budget_leaves_is_sampled():
    torch.manual_seed(1)
    sampled = 0
    for seed in range(10):
        table = random_table(WORDS, seed, 5, True, 3)
        first = decide(table, "levenshtein", mass=0.999, samples=300, max_expansions=3)[0]
        decision, distribution = first["decision"], whole(table)
        assert decision.sampled == (first["certificate"].search == "mbr-sampled")
        if decision.sampled:
            true = expected("levenshtein", text(first), distribution)
            assert decision.expected == pytest.approx(true, abs=0.25)
            assert decision.expected >= decision.beam
            sampled += 1
    assert sampled > 3


@pytest.mark.parametrize("name", UTILITIES)
def test_no_string_spreads_two_answers_further(name):
    u = utility(name)
    some = [tuple(s) for n in range(4) for s in itertools.product("ab", repeat=n)]
    for one, other in itertools.product(some, some):
        furthest = max(abs(u(one, y) - u(other, y)) for y in some)
        assert furthest <= u.spread(one, other) + 1e-9
        assert u(one, one) >= u(other, one)


def test_missing_mass_keeps_the_beams_answer():
    strings, weights, u = [("a",), ("b",)], [0.3, 0.4], utility("accuracy")
    assert choose(strings, weights, u, beam=0, missing=0.0).order == [1, 0]
    assert choose(strings, weights, u, beam=0, missing=0.3).order == [0, 1]


def test_an_unknown_utility():
    with pytest.raises(
        ValueError, match="must be one of levenshtein, chrf, bleu, accuracy, got ter"
    ):
        utility("ter")


def test_the_task_says_what_it_chose(capsys, tmp_path):
    config = SparseTranslationConfig(
        search="mbr", utility="chrf", search_report=str(tmp_path / "report.json")
    )
    task = SparseTranslationTask(config, WORDS, WORDS)
    models = [table_model(WORDS, random_table(WORDS, 3, 4, True, 3))]
    options = Namespace(beam=2, nbest=3, min_len=0, max_len_b=3)
    generator = task.build_generator(models, options)
    found = task.inference_step(generator, models, table_sample(WORDS, [4, 5]))
    task.log.finish()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["X-0", "X-1", "U-0", "U-1", "Search"]
    decision = found[1][0]["decision"]
    assert lines[3].startswith(f"U-1\texpected={decision.expected:.6g}\tbeam=")
    assert "search=mbr\t" in lines[0] and "sampled=0" in lines[4]
    assert '"beam_utility"' in (tmp_path / "report.json").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_strings": 0}, "--max-strings and --samples must be at least 1, got 0 and 64"),
        ({"search": "beam", "search_mass": 0.5}, "--search-mass 0.5 needs --search exact or mbr"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        SparseTranslationTask(SparseTranslationConfig(**{"search": "mbr", **options}), WORDS, WORDS)
