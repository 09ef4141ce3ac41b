"""examples/transduction: options, and what a report says."""

import pytest

from fairseq_entmax.data.transduction import Item
from tests.examples.scripts import load

run = load("examples/transduction/run.py")
page = load("examples/transduction/page.py")
options = run.options
BASE = ["--data", "x", "--task", "g2p", "--out", "o"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "g2p", "--out", "o"], "--data is missing"),
        (["--data", "x", "--out", "o"], "--task is missing"),
        ([*BASE, "--arch", "lstm_entmax"], "--arch must be one of lstm, two_headed, transformer"),
        ([*BASE, "--beam", "0"], "--beam is at least 1"),
        ([*BASE, "--subwords", "many"], "--subwords is a whole number, got many"),
        ([*BASE, "--output-alpha", "0.5"], "--output-alpha is a number >= 1"),
        ([*BASE, "--abstain", "2"], "--abstain is a probability, got 2"),
        ([*BASE, "--unit", "letters"], "--unit must be one of code-points, clusters, decomposed"),
        ([*BASE, "--shout", "2"], "unknown option: --shout"),
    ],
)
def test_wrong_options_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        options.read(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_several_files_are_one_value():
    given, flags = options.read(
        ["--data", "/a", "/b", *BASE[2:], "--seed", "08", "--", "--lr", "1"]
    )
    assert given["data"].split(options.os.pathsep) == ["/a", "/b"]
    assert given["seed"] == "8" and flags == ["--lr", "1"]
    assert given["metric"] == "accuracy"
    segmentation = options.read([*BASE, "--task", "segmentation"])[0]
    assert segmentation["metric"] == "f1"


def test_an_experiment_is_what_makes_its_models():
    def line(*more):
        return options.experiment(*options.read([*BASE, *more]))

    assert line() == line("--beam", "3", "--ensemble", "4", "--eval-split", "test")
    assert line() == "run.sh --task g2p --metric accuracy"
    different = {line(), line("--seed", "2"), line("--quick"), line("--", "--lr", "1")}
    assert len(different) == 4


def test_validation_words_are_drawn_evenly():
    dev = {
        name: [Item(name, str(i)) for i in range(size)]
        for name, size in {"small": 5, "large": 200, "larger": 300}.items()
    }
    drawn = run.every(dev, 90)
    assert [sum(item.language == name for item in drawn) for name in dev] == [5, 30, 30]
    assert len(set(drawn)) == len(drawn)
    assert [item.source for item in drawn if item.language == "larger"][:2] == ["0", "10"]


def test_the_page_and_the_closing_line():
    rates = {"accuracy": 75.0, "wer": 25.0, "per": 5.0, "cer": 4.0, "levenshtein": 0.5}
    proofs = {"words": 4, "exact": 1.0, "unique": 0.0, "unique_accuracy": float("nan")}
    level = {"asked": 0.9, "mean": 0.91, "low": 0.8, "high": 1.0}
    report = {
        "mean": {name: {"value": v, "interval": (v - 1, v + 1)} for name, v in rates.items()},
        "total": {**proofs, "support": 1.5},
        "languages": {"x": {**rates, **proofs}},
        "abstain": {"threshold": 0.9, "given": 0.5, "accuracy": 1.0},
        "conformal": {
            "levels": {
                "90": {**level, "temperature": 0.5, "complete": 1.0, "size": 2.0},
                "99": level,
            }
        },
    }
    text = "\n".join(page.markdown(report))
    assert "| x | 4 | 75.00 | 25.00 | 5.00 | 4.00 | 0.50 | 100.0% | 0.0% | - |" in text
    assert "- wer 25.00 [24.00, 26.00]" in text
    assert "| 90% | 0.5000 | 91.00% (80.0% to 100.0%) | 100.0% | 2 |" in text
    assert "| 99% | none" in text
    assert page.closing_line("g2p", report) == (
        "transduction: task=g2p languages=1 accuracy=0.7500 wer=25.00 per=5.00 f1=nan "
        "levenshtein=0.5000 support=1.500 exact=1.0000 unique=0.0000 unique_accuracy=nan"
    )
