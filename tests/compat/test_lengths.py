"""fairseq-interactive answers the lines that are short enough."""

from argparse import Namespace

import pytest
from fairseq.data import Dictionary
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from fairseq_cli import interactive

import fairseq_entmax  # noqa: F401, the repair


@pytest.fixture
def batches():
    words = Dictionary()
    words.add_symbol("x")
    task = TranslationTask(TranslationConfig(source_lang="a", target_lang="b"), words, words)

    def make(lines, limit, constraints=None):
        cfg = Namespace(
            generation=Namespace(constraints=constraints),
            dataset=Namespace(
                max_tokens=None, batch_size=2, skip_invalid_size_inputs_valid_test=False
            ),
        )
        made = interactive.make_batches(lines, cfg, task, limit, lambda line: line)
        return sorted(i for batch in made for i in batch.ids.tolist())

    return make


@pytest.mark.parametrize("limit", [(4, 9), 4])
def test_the_other_lines_are_answered(batches, caplog, limit):
    lines = ["x x x", "x x x x", "x", ""]
    assert batches(lines, limit) == [0, 2, 3]
    (said,) = [r.getMessage() for r in caplog.records if "no answer" in r.getMessage()]
    assert said.endswith("it has 5 tokens with the end mark, and the model reads 4 "
                         "(--max-source-positions)")  # fmt: skip


def test_none_of_the_lines_can_be_answered(batches):
    assert batches(["x x x x", "x x x x x"], (4, 4)) == []


def test_lines_are_numbered_as_their_answers(batches, caplog):
    batches(["x x x x"], (4, 4))
    batches(["x", "x x x x"], (4, 4))
    first, second = (r.args[0] for r in caplog.records if "no answer" in r.getMessage())
    assert second == first + 2


def test_constraints_are_no_part_of_the_line(batches, caplog):
    assert batches(["x x x\tx x x x"], (4, 9), "ordered") == [0]
    assert "no answer" not in caplog.text


def test_no_limit(batches):
    assert batches(["x " * 50], None) == [0]
