"""Metrics of transduction against their definitions, and their intervals."""

from collections import Counter

import numpy as np
import pytest
from fairseq import scoring
from hypothesis import given
from hypothesis import strategies as st

from fairseq_entmax.data.spelling import Spelling
from fairseq_entmax.data.transduction import FORMATS, Item
from fairseq_entmax.scoring.counts import COLUMNS, count, intervals, macro, rates
from fairseq_entmax.scoring.transduction import TransductionScorer, TransductionScorerConfig

PAIRS = [
    ("a b @@ c", "a b @@ c"),
    ("a b @@ a b", "a b"),  # the morpheme stands twice, is answered once
    ("a", "a @@ a"),
    ("t͡s a", "t a"),
    ("a ▁ @@ b", "a @@ b"),  # an empty morpheme between the blank and the border
]


def as_2022(pairs):
    """Precision, recall and F1 by the words of the task: multisets, summed over words."""

    def parts(text):
        return text.replace(" ", "").replace("▁", "@@").split("@@")

    overlap = sum(sum((Counter(parts(g)) & Counter(parts(a))).values()) for g, a in pairs)
    precision = overlap / sum(len(parts(a)) for _, a in pairs)
    recall = overlap / sum(len(parts(g)) for g, _ in pairs)
    return precision, recall, 2 * precision * recall / (precision + recall)


def sums(pairs):
    return np.array([count(g.split(), a.split(), True) for g, a in pairs]).sum(axis=0)


symbol = st.sampled_from(["a", "b", "@@", "▁"])
string = st.lists(symbol, min_size=1, max_size=6).map(" ".join)


@given(st.lists(st.tuples(string, string), min_size=1, max_size=5))
def test_morphemes_are_scored_as_in_2022(pairs):
    found = rates(sums(pairs))
    try:
        expected = as_2022(pairs)
    except ZeroDivisionError:
        return
    names = ("precision", "recall", "f1")
    assert [float(found[n]) for n in names] == pytest.approx([100 * x for x in expected])


def test_each_rate():
    found = rates(sums([("t͡s aː", "t͡s a"), ("b", "b"), ("k", "")]))
    assert found["accuracy"] == pytest.approx(100 / 3) and found["wer"] == pytest.approx(200 / 3)
    assert found["per"] == pytest.approx(100 * 2 / 4)
    assert found["cer"] == pytest.approx(100 * 2 / 7)  # ts with its tie, a and its length, b, k
    assert found["levenshtein"] == pytest.approx(2 / 3)


def test_macro_means_leave_empty_groups_out():
    rows = np.zeros((3, len(COLUMNS)), dtype=int)
    rows[0], rows[2] = sums([("a", "a"), ("a", "b")]), sums([("a", "a")])
    assert macro(rows)["accuracy"] == 75
    rows[2] = 0
    assert macro(rows)["accuracy"] == 50


def test_intervals_are_those_of_the_binomial():
    """Accuracy of 400 words with p = 0.7: its resamples are binomial, whose quantiles are known."""
    rows = np.array([count(["a"], ["a" if i < 280 else "b"], False) for i in range(400)])
    low, high = intervals([rows], resamples=2000, seed=3)["accuracy"]
    spread = 1.96 * 100 * (0.7 * 0.3 / 400) ** 0.5
    assert (low, high) == pytest.approx((70 - spread, 70 + spread), abs=0.6)
    assert intervals([rows], resamples=50, seed=3) == intervals([rows], resamples=50, seed=3)
    assert intervals([rows], 50, seed=3)["wer"] != intervals([rows], 50, seed=4)["wer"]


def test_languages_are_resampled_apart():
    """One language is all right, the other all wrong: the macro accuracy cannot vary."""
    right = np.array([count(["a"], ["a"], False)] * 5)
    wrong = np.array([count(["a"], ["b"], False)] * 50)
    assert intervals([right, wrong], resamples=100)["accuracy"] == (50, 50)


def test_scorer():
    scorer = scoring.build_scorer("transduction", None)
    assert scorer.score() == 0 and scorer.result_string() == "words: 0"
    for pair in PAIRS:
        scorer.add_string(*pair)
    assert scorer.score() == 20
    text = scorer.result_string()
    assert "accuracy: 20.00[0.00, 60.00]" in text and text.endswith("words: 5")
    precision, _, f1 = as_2022(PAIRS)
    assert f"precision: {100 * precision:.2f}[" in text and f"f1: {100 * f1:.2f}[" in text


def test_scorer_without_morphemes_or_resamples():
    scorer = TransductionScorer(TransductionScorerConfig(transduction_resamples=0))
    scorer.add_string("<<unk>> a", "<unk> a")
    assert scorer.result_string() == (
        "accuracy: 0.00, wer: 100.00, per: 50.00, cer: 25.00, levenshtein: 1.00, words: 1"
    )


def test_scorer_of_subwords(tmp_path):
    items = [Item("x", word, f"{word[:2]} @@{word[2:]}") for word in ("haus", "maus", "laus")] * 9
    spelling = Spelling.learn(FORMATS["segmentation"], items, 30)
    spelling.save(tmp_path)
    config = TransductionScorerConfig(transduction_spelling=str(tmp_path), transduction_resamples=0)
    scorer = TransductionScorer(config)
    tokens = " ".join(spelling.target_tokens(items[0]))
    scorer.add_string(tokens, " ".join(spelling.target_tokens(items[1])))
    assert "per: 20.00" in scorer.result_string()  # one of h a @@ u s
