"""Reading fairseq-generate's output back."""

import math

import pytest

from fairseq_entmax.analysis import Candidate, Sentence, read_generation

OUTPUT = """\
2026-01-01 | INFO | fairseq | a log line
S-1\tc d <de>
T-1\tx
H-1\t{one}\tx
D-1\t{one}\tx
P-1\t0.0 0.0
S-0\ta b <de>
T-0\ty y
H-0\t{half}\ty z
P-0\t0.0
H-0\t{quarter}\t
"""


@pytest.fixture
def generated(tmp_path):
    def write(text):
        path = tmp_path / "generated.txt"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def normalised(p, length):
    return math.log2(p) / (length + 1)


def test_sentences_are_read_in_order(generated):
    text = OUTPUT.format(one=0.0, half=normalised(0.5, 2), quarter=normalised(0.25, 0))
    first, second = read_generation(generated(text))
    assert (first.id, first.source, first.target) == (0, ["a", "b", "<de>"], ["y", "y"])
    assert [c.tokens for c in first.candidates] == [["y", "z"], []]
    assert [math.exp(c.log_prob) for c in first.candidates] == pytest.approx([0.5, 0.25])
    assert first.mass == pytest.approx(0.75)
    assert not first.correct and not first.exhausted
    assert second.correct and second.exhausted


def test_unnormalised_scores(generated):
    text = OUTPUT.format(one=0.0, half=math.log2(0.5), quarter=math.log2(0.5))
    first, _ = read_generation(generated(text), len_penalty=0)
    assert first.exhausted


@pytest.mark.parametrize(
    ("probs", "certified"),
    [
        ([0.5, 0.25], True),  # nothing else has more than 0.25
        ([1.0], True),
        ([0.4, 0.2], False),  # something else may have just as much: 0.4
        ([0.3, 0.2], False),
        ([0.2, 0.7], False),  # best by its length, but not the most probable
    ],
)
def test_certificate_of_the_best(probs, certified):
    candidates = [Candidate([str(i)], math.log(p)) for i, p in enumerate(probs)]
    assert Sentence(0, ["a"], ["0"], candidates).certified == certified


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "do not match"),
        ("S-0\ta\n", "do not match"),
        ("S-0\ta\nH-0\t0.0\n", "line 2"),
        ("S-x\ta\n", "line 1"),
    ],
    ids=["empty", "no answer", "cut off", "no number"],
)
def test_incomplete_output_is_refused(generated, text, message):
    with pytest.raises(ValueError, match=message):
        read_generation(generated(text))
