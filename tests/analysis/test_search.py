"""The numbers about the search, against brute force over models that are written down."""

import json
import math
import subprocess
import sys
from argparse import Namespace

import pytest
import torch

from fairseq_entmax.analysis.commands.search import main
from fairseq_entmax.analysis.search import COLUMNS, analyse, table
from tests.cli import commands, corpus
from tests.cli.conftest import data, shared, trained  # noqa: F401  the same fixtures
from tests.decoding.table_model import TableTask, dictionary, table_model, table_sample

WORDS = dictionary("ab")
EOS = WORDS.eos()
A, B = WORDS.index("a"), WORDS.index("b")
OPTIONS = Namespace(max_len_b=3, max_expansions=1000, strings=10, batch_size=2)


class Inputs:
    """Three sentences (4, 5 and 6) in batches of two and one."""

    task = TableTask(WORDS)

    def batches(self, size):
        for sentences in ([4, 5], [6]):
            sample = table_sample(WORDS, sentences)
            yield {**sample, "target": torch.tensor([[B, EOS]] * len(sentences))}


def write_down(sentence, prefix):
    if sentence == 4:  # greedy search errs: the best string is B
        return {(): {A: 0.6, B: 0.4}, (A,): {A: 0.5, EOS: 0.5}}.get(prefix, {EOS: 1.0})
    if sentence == 5:  # the empty string is more probable than any other
        table = {(): {EOS: 0.4, A: 0.35, B: 0.25}, (A,): {A: 0.5, EOS: 0.5}}
        return table.get(prefix, {EOS: 1.0})
    return {A: 1.0} if not prefix else {EOS: 1.0}


def test_numbers_of_three_sentences():
    greedy, wide = analyse(Inputs(), [table_model(WORDS, write_down)], [1, 4], OPTIONS)
    assert greedy["sentences"] == wide["sentences"] == 3
    assert greedy["beam"] == 1 and wide["beam"] == 4
    # of 4, 5 and 6 the beam of 1 finds the last two: EOS and A
    assert greedy["search_errors"] == pytest.approx(1 / 3) and wide["search_errors"] == 0
    assert greedy["optimum"] == pytest.approx(2 / 3) and wide["optimum"] == 1
    assert greedy["complete"] == pytest.approx(1 / 3) and wide["complete"] == 1
    assert greedy["accuracy"] == 0 and wide["accuracy"] == pytest.approx(1 / 3)
    assert greedy["empty"] == wide["empty"] == pytest.approx(1 / 3)
    assert wide["empty_wins"] == pytest.approx(1 / 3)
    assert wide["mass"] == pytest.approx(1)
    assert wide["unsolved"] == greedy["unsolved"] == 0
    assert wide["strings"] == 3  # of 3, 4 and 1


def test_softmax_has_no_number_of_strings_and_may_stay_unsolved():
    def dense(sentence, prefix):
        return {token: 1 / len(WORDS) for token in range(len(WORDS))}

    options = Namespace(**{**vars(OPTIONS), "max_expansions": 1})
    (row,) = analyse(Inputs(), [table_model(WORDS, dense, alpha=1.0)], [1], options)
    assert row["strings"] is None and row["alphas"] == [1.0]
    assert row["empty"] == 1
    assert 0 <= row["unsolved"] <= 1


def test_table_has_a_line_for_each_row():
    row = dict.fromkeys(COLUMNS)
    rows = [{**row, "model": "sparse", "beam": 5, "mass": 0.5, "unsolved": math.pi}]
    lines = table(rows).splitlines()
    assert len(lines) == 3 and lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert "| sparse | 5 | - |" in lines[2] and "| 0.500 |" in lines[2] and "| 3.142 |" in lines[2]


def test_command(data, trained, tmp_path):  # noqa: F811
    path = trained("lstm") / "checkpoint_last.pt"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fairseq_entmax", "search", str(data), "--cpu"),
            *("--model", f"one={path}", "--model", f"two={path}:{path}", "--beam", "1", "5"),
            *("--json", str(tmp_path / "rows.json"), "--strings", "20", "--max-expansions", "200"),
        ],
        cwd=str(commands.REPO),
        env=commands.environment(),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=commands.TIMEOUT,
        check=True,
    )
    assert done.stdout.count("\n| one | ") == done.stdout.count("\n| two | ") == 2
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["model"], row["beam"]) for row in rows] == [
        *(("one", 1), ("one", 5), ("two", 1), ("two", 5)),
    ]
    assert all(row["sentences"] == corpus.TEST for row in rows)
    assert rows[1]["optimum"] >= rows[0]["optimum"] and rows[1]["accuracy"] > 0.5
    for key in ("mass", "accuracy", "optimum"):  # a model and itself
        assert rows[1][key] == pytest.approx(rows[3][key], abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "nameless"], "expected NAME=CHECKPOINT"),
        (["--model", "a=/no/file.pt"], "there is no file /no/file.pt"),
        (["--model", f"a={__file__}", "--beam", "0"], "at least 1, got '0'"),
    ],
    ids=("name", "file", "beam"),
)
def test_bad_input_gives_one_clear_line(flags, message, capsys):
    with pytest.raises(SystemExit):
        main(["data", *flags])
    assert message in capsys.readouterr().err.splitlines()[-1]
