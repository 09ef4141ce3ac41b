"""``python -m fairseq_entmax predict``: tables in, tables out, mistakes named by line."""

import io
import json
import shutil
import sys

import pytest

from fairseq_entmax import __main__ as command
from fairseq_entmax.transduction import Answer, Transducer, folder
from fairseq_entmax.transduction.predict import output_fields

from .models import ITEMS, make


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("predict"), coverage={"90": 1.5})


@pytest.fixture
def predict(model, monkeypatch, capsys):
    def run(text, *arguments):
        data = text if isinstance(text, bytes) else text.encode("utf-8")
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": io.BytesIO(data)}))
        code = 0
        try:
            command.main(["predict", str(model), "--cpu", *arguments])
        except SystemExit as error:
            code = error.code
        found = capsys.readouterr()
        return code, [line.split("\t") for line in found.out.splitlines()], found.err

    return run


def test_answers_in_the_order_of_the_words(predict, model):
    code, lines, err = predict("".join(f"{item.source}\n" for item in ITEMS) + "\n")
    answers = Transducer.load(model, cpu=True).answers(ITEMS)
    assert code == 0 and "5 words in" in err
    assert [line[:3] for line in lines] == [
        [item.source, answer.text, answer.verdict] for item, answer in zip(ITEMS, answers)
    ]
    for line, answer in zip(lines, answers):
        assert float(line[3]) == pytest.approx(answer.probability, abs=1e-4)
        listed = json.loads(line[4]) if line[4] else [[answer.text, answer.probability]]
        assert [text for text, _ in listed] == [text for text, _ in answer.candidates]


def test_columns(predict):
    code, lines, err = predict("x\tab\nx\taZ\n", "--language-column", "--header")
    assert code == 0
    assert lines[0] == [
        *("language", "source", "answer", "verdict", "probability", "possible", "unknown")
    ]
    assert lines[1][:2] == ["x", "ab"] and json.loads(lines[2][6]) == ["Z"]
    assert "1 with symbols that the models do not know" in err


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("model-1.pt", lambda path: path.mkdir(), "Is a directory"),
        ("model-1.pt", lambda path: path.write_bytes(b"PK\x03\x04"), "it is damaged"),
        ("dict.source.txt", lambda path: None, "dict.source.txt"),
        ("dict.source.txt", lambda path: path.write_text("a b c\n"), "dict.source.txt: Incorrect"),
    ],
)
def test_a_damaged_folder_is_one_line(model, tmp_path, capsys, monkeypatch, name, damage, said):
    copy = tmp_path / "model"
    shutil.copytree(str(model), str(copy))
    (copy / name).unlink()
    damage(copy / name)
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": io.BytesIO(b"a\n")}))
    with pytest.raises(SystemExit) as ended:
        command.main(["predict", str(copy), "--cpu"])
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.out == ""
    assert said in printed.err and len(printed.err.splitlines()) == 1


def test_abstaining(predict):
    _, lines, _ = predict("a\nba\ncab\n", "--abstain", "1")
    for line in lines:
        assert (line[1] == "") == (line[2] == "withheld") == (line[2] not in ("unique", "proven"))


def test_a_coverage_has_its_temperature(predict, model):
    _, lines, _ = predict("cab\n", "--coverage", "90")
    wide = Transducer(model, temperature=1.5, cpu=True)("cab")
    assert [text for text, _ in json.loads(lines[0][4])] == [text for text, _ in wide.candidates]
    code, _, err = predict("cab\n", "--coverage", "95")
    assert code == 2 and "--coverage must be one of 90" in err


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("a\nb\tc\n", [], "line 2: expected source between tabs, got 'b\\tc'"),
        ("a\n\tx\n", ["--language-column"], "line 1: expected language, source between tabs"),
        ("y\ta\n", ["--language-column"], "line 1: the models know the languages x, got y"),
        ("a▁\n", [], "line 1: the character ▁"),
        (b"a\n\xff\n", [], "line 2: 'utf-8' codec"),
        ("a\n", ["--language", "y"], "the models know the languages x, got y"),
        ("a\n", ["--beam", "0"], "--beam must be at least 1, got 0"),
        ("a\n", ["--abstain", "2"], "--abstain is a probability, got 2.0"),
    ],
)
def test_mistakes_are_named(predict, text, arguments, message):
    code, _, err = predict(text, *arguments)
    assert code == 2 and err.startswith("predict: ") and message in err


def test_fields_of_an_answer():
    answer = Answer("b", 0.75, "proven", [("b", 0.75), ("c", 0.25)], True, ["Z"], ["b"])
    possible = '[["b", 0.75], ["c", 0.25]]'
    assert output_fields(answer) == ["b", "proven", "0.7500", possible, '["Z"]']
    assert output_fields(answer, 0.8) == ["", "withheld", "0.7500", possible, '["Z"]']
    alone = answer._replace(candidates=[("b", 1.0)], verdict="unique", unknown=[])
    assert output_fields(alone, 0.8) == ["b", "unique", "0.7500", "", ""]


def test_commands_are_named(capsys):
    for arguments, code in (([], 0), (["--help"], 0), (["shout"], 2)):
        with pytest.raises(SystemExit) as error:
            command.main(arguments)
        assert error.value.code == code
        found = capsys.readouterr()
        assert "predict" in (found.err if code else found.out)


def test_the_settings_are_kept(model):
    assert folder.read_settings(model).coverage == {"90": 1.5}
