"""Outputs of shards are joined in the order of the input, or refused."""

import re

import pytest

from fairseq_entmax.data import shards
from fairseq_entmax.data.files import write_lines


def output(number, of, sentences, ended=True):
    """What fairseq-generate prints for one shard, its log among the answers."""
    lines = ["2026-12-01 10:00:00 | INFO | fairseq_cli.generate | {'_name': None, 'A-1': 'x'}"]
    for i in sentences:
        lines += [f"S-{i}\tsource {i}", f"T-{i}\ttarget", f"H-{i}\t-0.5\ta", f"D-{i}\t-0.5\ta"]
        lines += [f"P-{i}\t-0.5", f"H-{i}\t-0.7\tb", f"D-{i}\t-0.7\tb", f"E-{i}_0\tc"]
    lines.append("Generate test with beam=5: BLEU4 = 12.00")
    return lines + ([f"Shard\t{number}\tof\t{of}"] if ended else [])


def sentences_of(lines):
    return [line for line in lines if re.match(r"[A-Z]-\d", line)]


@pytest.fixture
def merge(tmp_path, capsys):
    def run(outputs, *options):
        for name, lines in outputs.items():
            write_lines(tmp_path / name, lines)
        code = 0
        try:
            shards.main([*(str(tmp_path / name) for name in outputs), *options])
        except SystemExit as error:
            code = error.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_sentences_are_in_the_order_of_the_input(merge):
    parts = {"b": output(1, 3, [4, 0]), "a": output(0, 3, [3, 2, 1]), "c": output(2, 3, [])}
    for options in ([], ["--lines", "5"]):
        code, out, err = merge(parts, *options)
        assert (code, err) == (0, "")
        assert out.splitlines() == sentences_of(output(0, 1, range(5)))


WRONG = {
    "line": (
        {"a": output(0, 2, [0, 3]), "b": output(1, 2, [1])},
        "sentence 2 is missing: fairseq-generate skipped it",
    ),
    "lines": (
        {"a": output(0, 2, [0, 9]), "b": output(1, 2, [1])},
        "7 sentences (2 3 4 5 6 ...) are missing: fairseq-generate skipped it",
    ),
    "beyond": (
        {"a": output(0, 2, [0]), "b": output(2, 2, [1])},
        "b: it is shard 2 of 2, from 0",
    ),
    "doubled": (
        {"a": output(0, 2, [0, 1]), "b": output(1, 2, [1, 2])},
        "sentence 1 is in a and in b",
    ),
    "doubled inside": (
        {"a": [*output(0, 2, [0], ended=False), *output(0, 2, [0])], "b": output(1, 2, [1])},
        "a: sentence 0 is there twice",
    ),
    "appended": (
        {"a": [*output(0, 2, [0]), *output(1, 2, [1])]},
        "a: it holds more than one shard",
    ),
    "shard": ({"a": output(0, 2, [0, 1])}, "shard 1 is missing, of 2"),
    "shards": ({"a": output(1, 3, [0, 1])}, "2 shards (0 2) are missing, of 3"),
    "same": ({"a": output(0, 2, [0]), "b": output(0, 2, [1])}, "a and b are both shard 0"),
    "other": (
        {"a": output(0, 2, [0]), "b": output(1, 3, [1])},
        "a is one of 2 shards, b one of 3",
    ),
    "stopped": (
        {"a": output(0, 2, [0]), "b": output(1, 2, [1], ended=False)},
        "b: no line `Shard K of N` at its end: fairseq-generate was stopped or had no "
        "--num-shards and --shard-id",
    ),
    "empty": (
        {"a": []},
        "a: no line `Shard K of N` at its end: fairseq-generate was stopped or "
        "had no --num-shards and --shard-id",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_every_line_once_is_refused(merge, case):
    outputs, message = WRONG[case]
    assert merge(outputs) == (2, "", f"merge: {message}\n")


@pytest.mark.parametrize(
    ("n", "message"),
    [
        (3, "sentence 2 is missing: fairseq-generate skipped it"),
        (1, "--lines 1: there is a sentence 1, counted from 0"),
    ],
)
def test_number_of_lines(merge, n, message):
    outputs = {"a": output(0, 2, [0]), "b": output(1, 2, [1])}
    assert merge(outputs, "--lines", str(n)) == (2, "", f"merge: {message}\n")


def test_no_such_file(merge):
    code, out, err = merge({}, "nowhere")
    assert (code, out) == (2, "") and "'nowhere'" in err and len(err.splitlines()) == 1
