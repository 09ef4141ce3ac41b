"""The commands that draw, on trained models, as a user calls them; bad input is one line."""

import json
import re
from importlib import import_module

import pytest

pytest.importorskip("matplotlib", reason="needs the extra [plot]")

from fairseq_entmax.__main__ import COMMANDS, main
from fairseq_entmax.analysis.commands import COMMANDS as PICTURES
from tests.cli.conftest import data, shared, trained  # noqa: F401  the same fixtures

NOUN = "Haus"


@pytest.fixture(scope="module")
def lstm(data, trained):  # noqa: F811
    return [str(data), "--path", str(trained("lstm") / "checkpoint_last.pt"), "--cpu"]


@pytest.fixture(scope="module")
def log(trained):  # noqa: F811
    return trained("lstm") / "train.log"


def call(tmp_path, command, *args, out="picture.svg"):
    """The numbers behind a picture, which is written."""
    paths = [tmp_path / out, tmp_path / "numbers.json"]
    main([command, *map(str, args), "--out", str(paths[0]), "--json", str(paths[1])])
    assert paths[0].stat().st_size > 1000
    return json.loads(paths[1].read_text(encoding="utf-8"))


def test_alignment(lstm, tmp_path):
    found = call(tmp_path, "alignment", *lstm, "--input", NOUN)
    assert found["source"] == [*NOUN, "</s>"]
    (probs,) = (one["probs"] for one in found["maps"])
    assert len(probs) == len(found["target"]) and len(probs[0]) == len(found["source"])
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in probs)


def test_alignment_of_twins_and_of_the_reference(lstm, tmp_path):
    found = call(tmp_path, "alignment", *lstm, *lstm[1:3], "--sentence", 2, "--force-reference")
    assert len(found["maps"]) == 2 and found["maps"][0]["probs"] == found["maps"][1]["probs"]


@pytest.mark.parametrize("kind", ["cross", "encoder", "decoder"])
def test_every_head_of_a_transformer(data, trained, tmp_path, kind):  # noqa: F811
    path = trained("transformer") / "checkpoint_last.pt"
    options = ["--input", NOUN, "--cpu", "--grid", "--kind", kind]
    found = call(tmp_path, "alignment", data, "--path", path, *options, out="picture.png")
    assert len(found["maps"]) == 4  # two layers with two heads each
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in found["maps"][0]["probs"])


def test_tree(lstm, tmp_path):
    found = call(tmp_path, "tree", *lstm, *lstm[1:3], "--input", NOUN, "--strings", 5, "--beam", 5)
    exact, beam = found["models"]
    assert exact["certificate"]["search"] == "exact" and beam["certificate"]["search"] == "beam"
    assert 1 <= len(exact["strings"]) <= 5
    best = [max(s["log_prob"] for s in one["strings"]) for one in (exact, beam)]
    assert best[0] >= best[1] - 1e-5
    assert exact["tree"]["mass"] == pytest.approx(exact["certificate"]["mass"], abs=1e-5)


def test_steps(lstm, tmp_path):
    found = call(tmp_path, "steps", *lstm, "--sentence", 1)
    assert all(step["support"] >= 1 and step["gold"] for step in found["steps"][:1])
    for step in found["steps"]:
        assert sum(step["probs"]) + step["rest"] == pytest.approx(1, abs=1e-5)


def test_support(lstm, log, tmp_path):
    options = ["--log", log, "--sentences", 6, "--seed", 4]
    found = call(tmp_path, "support", *lstm, *options)
    assert len(found["counts"]) == 6 and found["seed"] == 4
    assert len(found["training"]["train"]) > 5  # one for each epoch
    assert "(seed 4)" in (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert call(tmp_path, "support", *lstm, *options)["counts"] == found["counts"]


def test_mapping(tmp_path):
    found = call(tmp_path, "mapping", "--alphas", 1, 2, out="picture.pdf")
    assert list(found["mappings"]) == ["1.0", "2.0"]


def test_sweep(tmp_path):
    row = {"attention_alpha": 1.5, "bleu": 30.0, "support": 20.0}
    rows = [{**row, "output_alpha": a, "seed": s} for a in (1.0, 1.5) for s in (1, 2)]
    (tmp_path / "sweep.json").write_text(json.dumps(rows))
    assert call(tmp_path, "sweep", tmp_path)["seeds"] == [1, 2]


def test_speed(tmp_path):
    point = {"num_updates": 10.0, "token_accuracy": 0.5, "cpu_s": 3.0, "wall_s": 4.0}
    row = {"case": "sparsemax, 10 updates", "peer": "softmax", "peer_curve": [point]}
    (tmp_path / "c.json").write_text(json.dumps([{**row, "curve": [point]}]))
    assert list(call(tmp_path, "speed", tmp_path / "c.json")) == ["softmax", "sparsemax"]


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("alignment", ["--input", " "], "the input is empty"),
        ("alignment", ["--input", "a " * 500], "the input has 500 tokens"),
        ("alignment", ["--input", NOUN, "--layer", "9"], "layers 1 to 1, got 9"),
        ("alignment", ["--input", NOUN, "--head", "9"], "heads 1 to 1, got 9"),
        ("alignment", ["--input", NOUN, "--kind", "encoder"], "no encoder attention"),
        ("alignment", ["--input", NOUN, "--force-reference"], "needs a sentence of a subset"),
        ("tree", ["--input", NOUN, "--mass", "2"], "--mass is a probability"),
        ("tree", ["--input", NOUN, "--strings", "0"], "--strings must be at least 1"),
        ("steps", ["--sentence", "99"], "subset test has 0 to 10"),
        ("steps", ["--subset", "train9"], "no subset 'train9', but test, test1"),
        ("steps", ["--languages", "x", "y"], r"no dictionary dict.x.txt"),
        ("support", ["--log", "missing.log"], "there is no log missing.log"),
        ("support", ["--sentences", "0"], "nothing to count on"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    lstm, tmp_path, capsys, command, options, message
):
    refused(tmp_path, capsys, [command, *lstm, *options], message)


def refused(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(tmp_path / "picture.svg")])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_not_there_or_of_other_data(lstm, tmp_path, capsys):
    data_of, _, path, _ = lstm
    refused(tmp_path, capsys, ["tree", data_of, "--path", "no.pt"], "there is no checkpoint no.pt")
    other = tmp_path.parent / "other-data"
    other.mkdir()
    for side in ("sg", "pl"):
        (other / f"dict.{side}.txt").write_text("a 1\n")
    options = ["--languages", "sg", "pl", "--input", "a"]
    message = f"give the data that {path} was trained on"
    refused(tmp_path, capsys, ["tree", str(other), "--path", path, *options], message)


def test_a_long_token_is_shortened_and_said(lstm, tmp_path, capsys):
    call(tmp_path, "alignment", *lstm, "--input", "x" * 50 + " H")
    assert "a token of 50 characters is shown as x" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    for arguments, code in (([], 0), (["--help"], 0), (["paint"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        output = capsys.readouterr()
        assert ended.value.code == code
        assert all(name in output.out + output.err for name in COMMANDS)


@pytest.mark.parametrize("name", PICTURES)
def test_the_example_in_the_help_parses(name):
    parser = import_module(PICTURES[name][0]).parser()
    example = re.search(rf"fairseq-entmax {name} (.*)", parser.epilog).group(1)
    arguments = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', example)]
    parser.parse_args(arguments)
