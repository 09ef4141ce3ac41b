"""Exact match and Levenshtein distance."""

from functools import lru_cache

import pytest
from fairseq import scoring
from hypothesis import given
from hypothesis import strategies as st

from fairseq_entmax.scoring import levenshtein

words = st.text("ab", max_size=6)


def by_recursion(one, other):
    @lru_cache(None)
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        replaced = distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, replaced)

    return distance(len(one), len(other))


@given(words, words)
def test_levenshtein_is_its_definition(one, other):
    assert levenshtein(one, other) == by_recursion(one, other)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("flaw", "lawn", 2)],
)
def test_known_distances(one, other, expected):
    assert levenshtein(one, other) == levenshtein(other, one) == expected


def test_symbols_of_several_letters_count_once():
    assert levenshtein(["▁A0", "a"], ["b", "a"]) == 1


def test_scorer():
    scorer = scoring.build_scorer("inflection", None)
    assert scorer.score() == 0
    scorer.add_string("H ä u s e r", "H ä u s e r")
    scorer.add_string("M ä u s e", "M a u s")
    scorer.add_string("<<unk>> a", "<unk> a")
    scorer.add_string("a", "")
    assert scorer.score() == 25.0
    assert scorer.result_string() == "accuracy: 25.00, levenshtein: 1.0000, words: 4"
