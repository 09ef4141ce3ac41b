"""Trees of strings that are written down, laid out."""

import math

import pytest
import torch

from fairseq_entmax.analysis.trees import layout, width
from fairseq_entmax.decoding.report import search_tree
from tests.decoding.table_model import dictionary

WORDS = dictionary("abc")


def hypotheses(strings):
    """{string: probabilities of its letters and the end}."""
    found = []
    for text, probs in strings.items():
        tokens = [*map(WORDS.index, text), WORDS.eos()]
        scores = torch.tensor(probs, dtype=torch.float64).log()
        found.append({"tokens": torch.tensor(tokens), "positional_scores": scores, "score": 0.0})
    return found


STRINGS = {"ab": [0.8, 0.75, 1.0], "acc": [0.8, 0.25, 1.0, 1.0], "b": [0.2, 1.0]}


def branches(answer=(), strings=STRINGS):
    found = layout(search_tree(hypotheses(strings), WORDS), answer)
    return {branch.leaf or branch.label: branch for branch in found}


def test_a_branch_ends_where_strings_part():
    assert set(branches()) == {"a", "ab", "acc", "b"}
    assert branches()["acc"].label == "cc"


def test_probabilities():
    found = branches()
    assert found["a"].prob == pytest.approx(0.8) and found["a"].mass == pytest.approx(0.8)
    assert found["acc"].prob == pytest.approx(0.25) and found["acc"].mass == pytest.approx(0.2)
    leaves = [b for b in found.values() if b.leaf is not None]
    assert math.fsum(b.mass for b in leaves) == pytest.approx(1)


def test_places():
    found = branches()
    assert [found[leaf].row for leaf in ("ab", "acc", "b")] == [0, 1, 2]
    assert found["a"].row == 0.5 == found["ab"].top  # amid its children
    assert found["a"].top == found["b"].top == 1.25  # the root
    assert found["ab"].start == found["a"].end > found["a"].start == 0


@pytest.mark.parametrize(
    ("answer", "marked"), [("acc", {"a", "acc"}), ("b", {"b"}), ("c", set()), ("", set())]
)
def test_the_answer_is_marked_along_its_way(answer, marked):
    assert {name for name, b in branches(list(answer)).items() if b.answer} == marked


def test_a_string_that_another_goes_on_from():
    found = branches(strings={"a": [1.0, 0.4], "ab": [1.0, 0.6, 1.0]})
    assert found["ab"].label == "b" and found["ab"].mass == pytest.approx(0.6)
    ends = [b for b in found.values() if b.label == ""]
    assert [(b.prob, b.end - b.start) for b in ends] == [(pytest.approx(0.4), 5)]


def test_one_string_is_one_branch():
    (only,) = branches(strings={"ab": [1.0, 1.0, 1.0]}).values()
    assert only.leaf == "ab" and only.row == only.top == 0


def test_long_strings_need_no_recursion():
    assert len(branches(strings={"a" * 5000: [1.0] * 5001})) == 1


def test_no_string():
    with pytest.raises(ValueError, match="no string with p > 0"):
        layout(search_tree([], WORDS))


@pytest.mark.parametrize(("text", "columns"), [("ab", 2), ("\u5bb6", 2), ("e\u0301", 1), ("", 0)])
def test_width(text, columns):
    assert width(text) == columns
