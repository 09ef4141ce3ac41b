"""What beam search says it has proven, against brute force over random models."""

import math
import random
from argparse import Namespace

import pytest
import torch

from fairseq_entmax.decoding import make_sparse
from fairseq_entmax.decoding.certificate import Objective, lower, upper
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
ROUNDING = 1 + 1e-6  # of the tables' probabilities in float32


def search(table, sentences, nbest=0, certify=True, **options):
    """Hypotheses of each sentence; the first one carries the certificate."""
    task, model = TableTask(WORDS), table_model(WORDS, table)
    generator = task.build_generator([model], Namespace(**options))
    make_sparse(generator, nbest=nbest, certify=certify)
    return task.inference_step(generator, [model], table_sample(WORDS, sentences))


def text(hypothesis):
    return tuple(hypothesis["tokens"].tolist()[:-1])


def is_real(hypotheses):
    return float(hypotheses[0]["score"]) > -math.inf


def random_case(seed):
    """A random sparse or dense model, and the options of a search in it."""
    rng = random.Random(seed)
    depth = rng.choice((2, 3, 4))
    table = random_table(WORDS, seed, rng.choice((1, 2, 3, 5)), rng.random() < 0.7, depth)
    options = {
        "beam": rng.choice((1, 2, 3, 5, 8)),
        "max_len_b": rng.choice((depth, 4)),
        "min_len": rng.choice((0, 0, 1, 2)),
        "unnormalized": rng.random() < 0.4,
        "lenpen": rng.choice((1.0, 1.0, 0.0, 2.0, -0.5)),
    }
    return table, options


def allowed(table, sentence, options):
    found = strings(WORDS, table, sentence, options["max_len_b"])
    return {s: p for s, p in found.items() if len(s) >= options["min_len"]}


def score(string, p, options):
    power = 0 if options["unnormalized"] else options["lenpen"]
    return math.log(p) / (len(string) + 1) ** power


def assert_certified(certificate, hypotheses, found, options):
    """Every claim of a certificate holds in the whole distribution."""
    listed = {text(h): found[text(h)] for h in hypotheses} if is_real(hypotheses) else {}
    missing = {s: p for s, p in found.items() if s not in listed}
    assert certificate.mass == pytest.approx(sum(listed.values()), abs=1e-5)
    # what neither is in the list nor was dropped has been cut off by the length limits
    assert certificate.mass + certificate.pruned < 1 + 1e-5
    assert sum(missing.values()) <= certificate.pruned + 1e-5
    assert math.exp(certificate.bound) * ROUNDING >= max(missing.values(), default=0)
    if certificate.complete:
        assert not missing
    if certificate.exact and found:
        best = max(score(s, p, options) for s, p in found.items())
        assert score(text(hypotheses[0]), listed[text(hypotheses[0])], options) >= best - 1e-6
    most = sorted(listed.values(), reverse=True)[: certificate.proven]
    if most:
        assert most[-1] * ROUNDING >= max(missing.values(), default=0)


def test_no_certificate_of_500_models_is_false():
    exact = proven = complete = inexact = 0
    for seed in range(500):
        table, options = random_case(seed)
        for sentence, hypotheses in zip((4, 5), search(table, [4, 5], **options)):
            certificate = hypotheses[0]["certificate"]
            assert_certified(certificate, hypotheses, allowed(table, sentence, options), options)
            exact += certificate.exact
            proven += certificate.proven > 0
            complete += certificate.complete
            inexact += not certificate.exact
    assert min(exact, proven, complete, inexact) > 100, "the cases prove nothing"


def test_a_search_error_is_not_certified():
    # greedy search takes A and misses the most probable string B
    table = {(): {A: 0.6, B: 0.4}, (A,): {A: 0.5, EOS: 0.5}, (A, A): {EOS: 1.0}, (B,): {EOS: 1.0}}

    def search_with(beam):
        (hypotheses,) = search(
            lambda s, p: table.get(p, {EOS: 1.0}), [4], beam=beam, max_len_b=4, unnormalized=True
        )
        return text(hypotheses[0]), hypotheses[0]["certificate"]

    string, certificate = search_with(1)
    assert string in ((A,), (A, A)) and not certificate.exact and certificate.proven == 0
    assert certificate.bound == pytest.approx(math.log(0.4), abs=1e-4)
    string, certificate = search_with(3)
    assert string == (B,) and certificate.exact and certificate.complete
    assert certificate.proven == 3 and certificate.mass == pytest.approx(1)
    assert certificate.pruned == 0 and certificate.bound == -math.inf


def test_support_expansions_and_the_empty_string():
    table = {(): {EOS: 0.25, A: 0.75}, (A,): {A: 0.5, B: 0.25, EOS: 0.25}}

    def certificate(min_len):
        (hypotheses,) = search(
            lambda s, p: table.get(p, {EOS: 1.0}), [4], beam=5, max_len_b=4, min_len=min_len
        )
        return hypotheses[0]["certificate"]

    free = certificate(0)
    # the prefixes (), (A,), (A, A) and (A, B) have 2, 3, 1 and 1 continuations
    assert (free.expansions, free.support) == (4, 7 / 4)
    assert free.empty == pytest.approx(0.25)
    assert certificate(1).empty is None
    assert certificate(1).mass == pytest.approx(0.75)


def test_early_stop_changes_no_answer():
    shorter = 0
    for seed in range(150):
        nbest = (1, 2, 4)[seed % 3]
        table, options = random_case(1000 + seed)
        whole = search(table, [4, 5], certify=False, **options)
        stopped = search(table, [4, 5], nbest=nbest, certify=False, **options)
        for full, early in zip(whole, stopped):
            scores = [float(h["score"]) for h in full[:nbest]]
            assert [float(h["score"]) for h in early[:nbest]] == scores
            shorter += len(early) < len(full)
    assert shorter > 5


def test_early_stop_saves_steps():
    calls = []

    def table(sentence, prefix):
        calls.append(prefix)
        if not prefix:
            return {A: 0.9, B: 0.1}
        return {EOS: 1.0} if prefix[0] == A else {B: 1.0}  # B never ends

    (hypotheses,) = search(table, [4], nbest=1, beam=2, max_len_b=50, unnormalized=True)
    assert text(hypotheses[0]) == (A,) and hypotheses[0]["certificate"].exact
    assert max(map(len, calls)) == 1


def test_half_precision_has_wider_bounds():
    p = torch.tensor([-3.0, -math.inf])
    for eps in (torch.finfo(torch.float32).eps, torch.finfo(torch.float16).eps):
        assert float(upper(p, 10, eps)[0]) > -3 > float(lower(p, 10, eps)[0])
        assert float(upper(p, 10, eps)[1]) == float(lower(p, 10, eps)[1]) == -math.inf
    half = upper(-3.0, 10, torch.finfo(torch.float16).eps)
    assert half > upper(-3.0, 10, torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("power", (-1.0, 0.0, 0.6, 1.0, 2.0))
def test_no_continuation_scores_above_the_bound(power):
    objective = Objective(power, longest=9)
    for length in range(1, 10):
        for log_prob in (-0.1, -2.0, -7.0):
            bound = objective.bound(log_prob, length)
            for more in range(length, 10):
                for fall in (0.0, -0.5, -3.0):
                    assert objective.score(log_prob + fall, more) <= bound + 1e-12


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sampling": True}, "Sampling"),
        ({"diverse_beam_groups": 2}, "DiverseBeamSearch"),
        ({"diversity_rate": 0.5}, "DiverseSiblingsSearch"),
        ({"match_source_len": True}, "LengthConstrainedBeamSearch"),
        ({"constraints": "ordered"}, "LexicallyConstrainedBeamSearch"),
        ({"unkpen": -1.0}, "--unkpen -1.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_searches_without_certificate_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        search(lambda s, p: {EOS: 1.0}, [4], beam=2, max_len_b=4, **options)


def test_ngram_block_and_forced_prefix_are_limits():
    table = random_table(WORDS, 5, 2, True, 3)
    first = max(table(4, ()))
    task, model = TableTask(WORDS), table_model(WORDS, table)
    for no_repeat, prefix in ((2, None), (0, [[first]]), (0, [[first, 1]])):
        generator = task.build_generator(
            [model], Namespace(beam=30, max_len_b=4, min_len=0, no_repeat_ngram_size=no_repeat)
        )
        make_sparse(generator, certify=True)
        prefix_tokens = None if prefix is None else torch.tensor(prefix)
        (hypotheses,) = task.inference_step(
            generator, [model], table_sample(WORDS, [4]), prefix_tokens=prefix_tokens
        )
        found = {
            s: p
            for s, p in strings(WORDS, table, 4, 4).items()
            if len(set(zip(s, s[1:]))) == max(len(s) - 1, 0) or not no_repeat
            if prefix is None or s[:1] == (first,)
        }
        assert len(found) > 1
        assert {text(h) for h in hypotheses if is_real(hypotheses)} == set(found)
        assert hypotheses[0]["certificate"].complete
        assert hypotheses[0]["certificate"].mass == pytest.approx(sum(found.values()))
