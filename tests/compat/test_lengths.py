"""fairseq-interactive answers the lines that are short enough."""

import os
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

    make.task = task
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


def test_nothing_is_kept_of_lines_that_are_answered(batches):
    batches(["x x", "x"], (4, 4))
    assert batches.task.dataset_to_epoch_iter == {}


STRANGE = [b"a b\n", b"\n", b"a \xff\xfe b\n", b"a\rb\n", "a\u2028b\n".encode(), b"\x00\n", b"last"]
READ = ["a b", "", "a \ufffd\ufffd b", "a\rb", "a\u2028b", "\x00", "last"]


@pytest.mark.parametrize("buffer", [1, 3, 100])
def test_a_line_is_a_line_whatever_its_bytes(tmp_path, caplog, buffer):
    path = tmp_path / "lines"
    path.write_bytes(b"".join(STRANGE))
    read = list(interactive.buffered_read(str(path), buffer))
    assert [line for some in read for line in some] == READ
    assert {len(some) for some in read[:-1]} <= {buffer}
    assert ["S-2 is not UTF-8" in r.getMessage() for r in caplog.records] == [True]


def test_lines_of_a_person_are_answered_one_by_one():
    """Standard input that is still open."""
    reader, writer = os.pipe()
    old = os.dup(0)
    os.dup2(reader, 0)
    try:
        os.write(writer, b"first\n")
        lines = interactive.buffered_read("-", 1)
        assert next(lines) == ["first"]
        os.write(writer, b"second\n")
        os.close(writer)
        assert list(lines) == [["second"]]
    finally:
        os.dup2(old, 0)
        os.close(old)
