"""examples/language_model: the text as symbols, and a run from text to figures."""

import json
import re

import pytest

from tests.cli import commands

from .scripts import REPO, load

prepare = load("examples/language_model/prepare.py")
collect = load("examples/language_model/collect.py")
FOLDER = REPO / "examples" / "language_model"
TEXT = "\n\n".join(
    f"Speaker {i % 7}:\nthe {i % 5} cats  sit\non it, and so does the dog." for i in range(120)
)


@pytest.mark.parametrize("level", prepare.LEVELS)
def test_no_word_is_lost(level):
    parts = prepare.split(TEXT, level)
    passages = [line.split() for name in prepare.SPLITS for line in parts[name]]
    assert [len(parts[name]) for name in prepare.SPLITS] == [108, 6, 6]
    joined = "" if level == "characters" else " "
    texts = [joined.join(passage).replace("▁", " ").replace("⏎", "\n") for passage in passages]
    found, expected = (
        [re.findall(r"\w+|[^\w\s]", text) for text in given]
        for given in (texts, TEXT.split("\n\n"))
    )
    assert found == expected


def test_a_text_without_passages():
    with pytest.raises(ValueError, match="at least 20 passages"):
        prepare.split("one\n\ntwo", "words")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x"], "--text names a text file, got ''"),
        (["--out", "x", "--level", "bytes"], "--level must be characters or words, got bytes"),
        (["--out", "x", "--output-alpha", "0.5"], "--output-alpha is a number >= 1"),
        (["--out", "x", "--seeds", "0"], "--seeds is a whole number, at least 1, got 0"),
    ],
)
def test_bad_options_are_one_line(arguments, message, tmp_path):
    if "--text" not in message:
        (tmp_path / "text").write_text(TEXT, encoding="utf-8")
        arguments = ["--text", "text", *arguments]
    done = commands.attempt_script(FOLDER / "run.sh", tmp_path, *arguments)
    assert done.code == 2 and message in done.output and done.output.count("\n") == 1


def test_a_run(tmp_path):
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    options = ["--text", "text", "--out", "out", "--max-update", 3, "--passages", 4]
    done = commands.attempt_script(FOLDER / "run.sh", tmp_path, *options, "--output-alpha", 1.2)
    assert done.code == 0, done.output
    rows = json.loads((tmp_path / "out" / "model-1" / "generation.json").read_text("utf-8"))
    assert [row["sampling"] for row in rows] == [
        *("", "full", "greedy", "nucleus=0.9", "nucleus=0.95", "topk=10", "temperature=0.8")
    ]
    assert all(row["length"] <= 128 for row in rows)
    assert all(0 < row["js"] < 0.7 for row in rows[1:])
    again = commands.attempt_script(FOLDER / "run.sh", tmp_path, *options, "--output-alpha", 1.2)
    assert again.code == 0 and "training" not in again.output
    other = commands.attempt_script(FOLDER / "run.sh", tmp_path, *options, "--output-alpha", 2)
    assert other.code == 2 and "another experiment" in other.output


def test_seeds_are_one_line_with_their_spread():
    def row(alpha, seed, sampling, **figures):
        command = f"run.sh --level words --output-alpha {alpha} --seed 1 --max-update 9"
        return dict(command=command, seed=seed, sampling=sampling, versions="v", **figures)

    rows = [row("1", "1", "", length=5.0), row("1", "1", "full", js=0.3)]
    rows += [row("1.5", seed, "full", js=js) for seed, js in (("1", 0.2), ("2", 0.4))]
    *_, text, softmax, sparse = collect.tables(rows).splitlines()
    assert text.startswith("| the text | - | 1 | - | - |")
    assert softmax.startswith("| softmax | full | 1 | - | 0.3000 |")
    assert sparse.startswith("| 1.5 | full | 2 | - | 0.3000 ± 0.14 |")
