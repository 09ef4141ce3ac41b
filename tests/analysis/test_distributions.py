"""``fairseq-entmax distribution``: means with bounds and calibration, on a trained model."""

import json
import math

import pytest

from fairseq_entmax.__main__ import main
from fairseq_entmax.analysis.distributions import known_of, mean, summarise
from fairseq_entmax.analysis.opened import Line
from fairseq_entmax.decoding.distribution import Bounds, Distribution
from tests.cli.conftest import data, shared, trained  # noqa: F401  the same fixtures


def known(probs, missing, reference):
    strings = [("a", "e"), ("a", "n"), ("b",)][: len(probs)]
    found = Distribution(strings, probs, missing, missing, longest=3, words=4)
    line = Line(["x"], None, None, 0)
    return known_of(line, found, reference, {"e": "e$"}, "", nbest=2)


def test_means_and_calibration_by_hand():
    sure, part = known([1.0], 0.0, ("a", "e")), known([0.5, 0.3], 0.2, ("a", "n"))
    assert sure.certain and sure.confidence == 1 and sure.correct
    assert not part.certain and part.confidence == 0.5 and not part.correct
    summary = summarise([sure, part])
    assert summary.events["e"] == pytest.approx((1.625 / 2, 1.5 / 2, 1.7 / 2))
    assert summary.accuracy == 0.5 and summary.certain == 0.5 and summary.mass == 0.9
    assert [(b.low, b.answers, b.accuracy) for b in summary.calibration] == [(0.4, 1, 0), (1, 1, 1)]
    assert summary.row()["entropy"]["low"] <= summary.entropy.value
    assert part.best[0] == ("ae", Bounds(0.5 / 0.8, 0.5, 0.5 / 0.8))


def test_a_sentence_without_strings_has_no_value():
    nothing = known([], 1.0, ("b",))
    assert nothing.confidence == 0 and not nothing.correct
    assert nothing.row()["entropy"]["value"] is None
    assert mean([Bounds(math.nan, 0, 1), Bounds(0.5, 0.5, 0.5)]) == (0.5, 0.25, 0.75)
    with pytest.raises(ValueError, match="no sentences"):
        summarise([])


def test_the_command(data, trained, tmp_path, capsys):  # noqa: F811
    path, numbers = trained("lstm") / "checkpoint_last.pt", tmp_path / "numbers.json"
    main(
        ["distribution", str(data), "--path", str(path), "--cpu", "--sentences", "5"]
        + ["--event", "umlaut=[äöü]", "--event", "e$", "--nbest", "1000", "--json", str(numbers)]
    )
    said = capsys.readouterr().out
    assert "5 sentences" in said and "| P(umlaut) |" in said and "calibration error" in said
    found = json.loads(numbers.read_text(encoding="utf-8"))
    assert len(found["sentences"]) == 5
    for sentence in found["sentences"]:
        strings = {text: share["value"] for text, share in sentence["best"]}
        assert sum(strings.values()) == pytest.approx(1)
        with_umlaut = sum(p for text, p in strings.items() if set(text) & set("äöü"))
        assert sentence["events"]["umlaut"]["value"] == pytest.approx(with_umlaut)
        entropy = -sum(p * math.log(p) for p in strings.values())
        assert sentence["entropy"]["value"] == pytest.approx(entropy, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mass", "0"], "--mass must be in (0, 1]"),
        (["--strings", "0"], "argument --strings: must be a whole number, at least 1, got '0'"),
        (["--event", "x=("], "is no regular expression"),
        (["--path", "no.pt"], "there is no checkpoint no.pt"),
    ],
)
def test_bad_input(options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["distribution", "nowhere", "--path", "no.pt", *options])
    assert ended.value.code == 2 and message in capsys.readouterr().err
