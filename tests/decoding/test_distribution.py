"""What the list of exact search proves of the distribution, against the whole of it."""

import math
import random

import pytest

from fairseq_entmax.decoding.distribution import (
    Distribution,
    calibration,
    calibration_error,
    distribution_of,
)
from tests.decoding.table_model import dictionary, random_table, strings
from tests.decoding.test_exact import search

WORDS = dictionary("abcd")
TOLERANCE = 1e-5  # float32 tables


def brute_force(table, max_len):
    """Every allowed string with its share of the allowed mass."""
    found = strings(WORDS, table, 4, max_len)
    total = math.fsum(found.values())
    return {tuple(WORDS[t] for t in s): p / total for s, p in found.items()}


def truths(whole):
    """Entropy, expected length, the shares of strings that end with b and that have ca."""
    return {
        "entropy": -math.fsum(p * math.log(p) for p in whole.values()),
        "length": math.fsum(p * len(s) for s, p in whole.items()),
        "ends": math.fsum(p for s, p in whole.items() if s[-1:] == ("b",)),
        "occurs": math.fsum(p for s, p in whole.items() if "ca" in "".join(s)),
    }


def claims(proven):
    return {
        "entropy": proven.entropy(),
        "length": proven.length(),
        "ends": proven.probability(lambda s: s[-1:] == ("b",)),
        "occurs": proven.matching("ca", separator=""),
    }


def test_every_number_of_200_models_is_inside_its_bounds():
    partial = whole_lists = 0
    for seed in range(200):
        rng = random.Random(seed)
        max_len = rng.choice((3, 4))
        table = random_table(WORDS, seed, rng.choice((2, 3, 5)), rng.random() < 0.7, 3)
        options = {"nbest": rng.choice((1, 3, 10, 1000)), "mass": rng.choice((0.5, 0.9, 1.0))}
        (hypotheses,) = search([table], [4], beam=1, min_len=0, max_len_b=max_len, exact=options)
        whole = brute_force(table, max_len)
        if not whole:
            continue
        proven = distribution_of(hypotheses, WORDS, max_len)
        expected = truths(whole)
        for name, found in claims(proven).items():
            assert found.low - TOLERANCE <= expected[name] <= found.high + TOLERANCE, (seed, name)
            assert found.low <= found.value <= found.high
            if proven.missing == 0:
                assert found.value == pytest.approx(expected[name], abs=TOLERANCE)
        for string, share in proven.posterior():
            assert share.low - TOLERANCE <= whole[string] <= share.high + TOLERANCE
        partial += proven.missing > 0
        whole_lists += proven.missing == 0
    assert partial > 40 and whole_lists > 40


def test_bounds_can_be_reached():
    # the missing tenth is one string, or many; all of it or none ends with b
    d = Distribution([("a",), ("b",)], [0.6, 0.3], 0.1, 0.1, longest=2, words=2)
    ends = d.probability(lambda s: s[-1:] == ("b",))
    assert (ends.low, ends.high) == pytest.approx((0.3, 0.4))
    one_more = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    assert d.entropy().low <= one_more <= d.entropy().high
    nothing_more = -sum(p * math.log(p) for p in (2 / 3, 1 / 3))
    assert d.entropy().low == pytest.approx(nothing_more)
    assert d.length().high == pytest.approx(0.9 + 0.2)


def test_more_is_proven_of_a_longer_list():
    table = random_table(WORDS, 5, 5, True, 3)
    widths = []
    for mass in (0.3, 0.6, 0.9, 1.0):
        exact = {"nbest": 10000, "mass": mass}
        (hypotheses,) = search([table], [4], beam=1, min_len=0, max_len_b=3, exact=exact)
        found = distribution_of(hypotheses, WORDS, 3).entropy()
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[-1]


def test_a_sentence_without_strings():
    d = Distribution([], [], 1.0, 1.0, longest=3, words=4)
    assert d.probability(len)[1:] == (0.0, 1.0) and d.length()[1:] == (0.0, 3.0)
    assert math.isnan(d.entropy().value) and d.posterior() == []


def test_it_needs_an_exact_search():
    with pytest.raises(ValueError, match="needs the hypotheses of ExactSearch"):
        distribution_of([{"score": 0.0}], WORDS, 3)


def test_calibration_by_hand():
    found = calibration([0.05, 0.1, 0.95, 1.0, 1.0], [False, True, True, True, False])
    assert [(b.low, b.high, b.answers) for b in found] == [(0, 0.1, 2), (0.9, 1, 1), (1, 1, 2)]
    assert [b.accuracy for b in found] == [0.5, 1.0, 0.5]
    expected = (2 * (0.5 - 0.075) + 0.05 + 2 * 0.5) / 5
    assert calibration_error(found) == pytest.approx(expected)
    with pytest.raises(ValueError, match="a confidence for each answer"):
        calibration([1.0], [])
