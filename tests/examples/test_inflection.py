"""The inflection example: data in, predictions out, and its report."""

import json
import random
import sys

import pytest
import torch
from fairseq.data import Dictionary

from fairseq_entmax.analysis import read_generation
from tests.examples.scripts import load

LINES = {
    "german": ["Haus\tHäuser\tN;NOM;PL", "gehen\tgeht\tV;IND;PRS;3;SG", "Tag\tTag\t"],
    "turkish": ["ev\tevler\tN;PL", "de\u00a0da\tde da\tN"],
}


preparation = load("scripts/prepare_inflection.py")
report = load("examples/inflection/report.py")
collect = load("examples/inflection/collect.py")


def write(folder, name, lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes("".join(line + "\n" for line in lines).encode("utf-8"))


@pytest.fixture
def data(tmp_path):
    """As in a clone of sigmorphon/conll2018; farsi is there for evaluation only."""
    for language, lines in LINES.items():
        folder = tmp_path / "data" / "task1" / ("all" if language == "german" else "surprise")
        write(folder, f"{language}-train-medium", [*lines, ""])
        write(folder, f"{language}-dev", lines[::-1])
        write(folder, f"{language}-test", lines[:1])
    write(tmp_path / "data" / "task1" / "all", "farsi-dev", ["a\tb\tN"])
    return tmp_path / "data"


def prepare(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["prepare_inflection.py", *map(str, args)])
    preparation.main()


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_lines_of_the_corpus(data, tmp_path, monkeypatch, capsys):
    prepare(monkeypatch, "prepare", data, tmp_path / "out")
    assert "left out: farsi" in capsys.readouterr().out
    assert lines_of(tmp_path / "out" / "train.lemma") == [
        "H a u s <lang:german> <N> <NOM> <PL>",
        "g e h e n <lang:german> <V> <IND> <PRS> <3> <SG>",
        "T a g <lang:german>",
        "e v <lang:turkish> <N> <PL>",
        "d e ▁A0 d a <lang:turkish> <N>",
    ]
    forms = lines_of(tmp_path / "out" / "train.form")
    assert forms == ["H ä u s e r", "g e h t", "T a g", "e v l e r", "d e ▁ d a"]
    assert lines_of(tmp_path / "out" / "dev.form") == [*forms[2::-1], *forms[:2:-1]]
    assert lines_of(tmp_path / "out" / "test.form") == [forms[0], forms[3]]
    assert lines_of(tmp_path / "out" / "dev.tsv")[0] == "german\tTag\tTag\t"


def test_named_languages_and_a_flat_folder(data, tmp_path, monkeypatch):
    flat = data / "task1" / "all"
    prepare(monkeypatch, "prepare", flat, tmp_path / "out", "--languages", "german")
    assert lines_of(tmp_path / "out" / "languages.txt") == ["german"]
    assert len(lines_of(tmp_path / "out" / "train.form")) == 3


def test_without_dev_training_pairs_are_held_out(tmp_path, monkeypatch, capsys):
    pairs = [f"w{i}\tw{i}s\tN" for i in range(45)]
    write(tmp_path / "data", "german-train-medium", pairs)
    write(tmp_path / "data", "german-test", pairs[:1])
    options = ("--languages", "german", "--eval-split", "test")
    prepare(monkeypatch, "prepare", tmp_path / "data", tmp_path / "out", *options)
    assert "3 training pairs held out" in capsys.readouterr().out
    train, dev = (lines_of(tmp_path / "out" / f"{name}.lemma") for name in ("train", "dev"))
    assert len(train) == 42 and len(dev) == 3 and not set(train) & set(dev)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"Haus\tN;PL", "line 2: expected lemma, form and features between tabs, got 2 fields"),
        (b"Haus\tH\xff\tN", "line 2: 'utf-8' codec"),
        (b"\tb\tN", "line 2: a word without characters"),
        (b"a\t\tN", "line 2: a word without characters"),
        ("a▁\tb\tN".encode(), "line 2: the character ▁"),
        (b"a\tb\tpad", "line 2: the feature 'pad'"),
    ],
    ids=["fields", "encoding", "lemma", "form", "space symbol", "feature"],
)
def test_a_bad_line_is_named(data, tmp_path, monkeypatch, line, message):
    path = data / "task1" / "all" / "german-dev"
    path.write_bytes(b"a\tb\tN\r\n" + line + b"\n")
    with pytest.raises(SystemExit, match="german-dev, ") as error:
        prepare(monkeypatch, "prepare", data, tmp_path / "out")
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--languages", "german klingon"], "no pairs in klingon-train-medium (files of this"),
        (["--languages", "farsi"], "files of this language: farsi-dev; languages with such a file"),
        (["--languages", " "], "no languages"),
        (["--setting", "high"], "no language has both LANGUAGE-train-high and LANGUAGE-dev"),
    ],
    ids=["unknown", "without training", "none", "setting"],
)
def test_languages_that_are_not_there(data, tmp_path, monkeypatch, options, message):
    with pytest.raises(SystemExit) as error:
        prepare(monkeypatch, "prepare", data, tmp_path / "out", *options)
    assert message in str(error.value)


def test_no_such_folder(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no such folder"):
        prepare(monkeypatch, "prepare", tmp_path / "nothing", tmp_path / "out")


def test_validation_words_are_drawn_evenly():
    entries = {
        name: [preparation.Entry(name, str(i), "x", "") for i in range(size)]
        for name, size in {"small": 5, "large": 200, "larger": 300}.items()
    }
    drawn = preparation.sample(entries, 90, seed=1)
    assert [sum(e.language == name for e in drawn) for name in entries] == [5, 30, 30]
    assert len(set(drawn)) == len(drawn)
    assert drawn == preparation.sample(entries, 90, seed=1)


def test_a_file_is_split_by_lemma(tmp_path, monkeypatch, capsys):
    lines = [f"lemma{i // 6}\tform{i}\tN;{i % 6}" for i in range(300)]  # 50 lemmas of 6 forms
    write(tmp_path, "deu", lines)
    sizes = ("--train", 60, "--dev", 20, "--test", 1000)
    prepare(
        monkeypatch, "split", tmp_path / "deu", tmp_path / "out", "--language", "german", *sizes
    )
    parts = [
        lines_of(tmp_path / "out" / f"german-{part}") for part in ("train-medium", "dev", "test")
    ]
    assert [len(part) for part in parts] == [18, 6, 276]  # 3, 1 and 46 lemmas
    lemmas = [{line.split("\t")[0] for line in part} for part in parts]
    assert sum(map(len, lemmas)) == len(set.union(*lemmas)) == 50
    assert set().union(*parts) == set(lines)
    assert "german-test: 276 pairs of 46 lemmas" in capsys.readouterr().out
    few = ("--train", 30, "--dev", 10, "--test", 10)
    prepare(monkeypatch, "split", tmp_path / "deu", tmp_path / "few", "--language", "x", *few)
    assert len(lines_of(tmp_path / "few" / "x-train-medium")) == 30


GENERATED = """\
S-0\td e ▁A0 d a <lang:turkish> <N>
T-0\td e ▁ d a
H-0\t-2.0\td e ▁ d a
H-0\t-9.0\td e
S-1\te v <lang:turkish> <N> <PL>
T-1\te v l e r
H-1\t0.0\te v l
S-2\tT a g <lang:german>
T-2\tT a g
H-2\t0.0\tT a g
"""


def test_predictions_go_back_into_data_files(data, tmp_path, monkeypatch):
    prepare(monkeypatch, "prepare", data, tmp_path / "out", "--languages", "turkish german")
    dev = lines_of(tmp_path / "out" / "dev.tsv")
    assert dev[0] == "turkish\tde\u00a0da\tde da\tN"
    write(tmp_path / "out", "dev.tsv", dev[:3])
    generated = tmp_path / "generated.txt"
    generated.write_text(GENERATED, encoding="utf-8")
    prepare(monkeypatch, "restore", tmp_path / "out" / "dev.tsv", generated, tmp_path / "answers")
    turkish = (tmp_path / "answers" / "turkish.tsv").read_text(encoding="utf-8")
    assert turkish == "de\u00a0da\tde da\tN\nev\tevl\tN;PL\n"
    assert (tmp_path / "answers" / "german.tsv").read_text(encoding="utf-8") == "Tag\tTag\t\n"


def test_predictions_of_another_run_are_refused(data, tmp_path, monkeypatch):
    prepare(monkeypatch, "prepare", data, tmp_path / "out")
    generated = tmp_path / "generated.txt"
    generated.write_text(GENERATED, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"answers 3 words, .* has 5"):
        prepare(monkeypatch, "restore", tmp_path / "out" / "dev.tsv", generated, tmp_path / "a")


def test_scores_by_language(tmp_path):
    generated = tmp_path / "generated.txt"
    generated.write_text(GENERATED, encoding="utf-8")
    sentences = read_generation(generated, len_penalty=0)
    groups = report.by_language(sentences, ["german", "turkish"])
    german, turkish = (report.scores(groups[name]) for name in ("german", "turkish"))
    assert german == {"words": 1, "accuracy": 1.0, "levenshtein": 0.0, "exact": 1.0}
    assert turkish == {"words": 2, "accuracy": 0.5, "levenshtein": 1.0, "exact": 0.5}
    with pytest.raises(SystemExit, match="no answers for klingon"):
        report.by_language(sentences, ["german", "turkish", "klingon"])


def test_source_lines_of_random_words_keep_their_parts():
    rng = random.Random(3)
    words = ["".join(rng.choices("ab ▂<>\u3000", k=rng.randint(1, 8))) for _ in range(50)]
    for word in words:
        entry = preparation.Entry("x-y", word, word, "N; PL;;")
        symbols = Dictionary().encode_line(entry.source, add_if_not_exist=False)
        assert len(symbols) == len(word) + 3 + 1  # language, N, PL; the end of the line
        assert entry.source.endswith(" <lang:x-y> <N> <PL>")


# ---- the page of results


def finished_run(folder, command, accuracy, seconds):
    """What run.sh leaves behind."""
    (folder / "model-1").mkdir(parents=True)
    (folder / "experiment.txt").write_text(command + "\n")
    mean = {"accuracy": accuracy, "levenshtein": 0.5, "support": 1.25, "attended": 2, "exact": 0.9}
    languages = {name: {"accuracy": accuracy} for name in ("german", "turkish")}
    text = json.dumps({"mean": mean, "languages": languages})
    (folder / "dev-beam5-models1-report.json").write_text(text)
    state = {"args": None, "cfg": None, "model": {}}
    torch.save(
        {**state, "extra_state": {"previous_training_time": seconds}},
        str(folder / "model-1" / "checkpoint_last.pt"),
    )
    return folder


def collected(monkeypatch, into, *outs):
    arguments = ["collect.py", "--hardware", "a core", "--into", into, *outs]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    collect.main()
    return json.loads((into / "results.json").read_text()), (into / "RESULTS.md").read_text()


TWO_FLAGS = " -- --gate none --language-embed-dim 20 --tag-summary-dim 0"


def test_runs_are_added_to_the_page(tmp_path, monkeypatch):
    command = "run.sh --output-alpha {0} --attention-alpha {0} --arch {1} --seed 1{2}"
    single = command.format(1.5, "lstm_entmax", "")
    two = command.format(2, "two_headed_lstm_entmax", TWO_FLAGS)
    first = finished_run(tmp_path / "single", single, 0.8125, 1800)
    second = finished_run(tmp_path / "two", two, 0.75, 5400)
    (tmp_path / "RESULTS.md").write_text(
        "above\n<!-- tables -->\nold\n<!-- end of tables -->\nbelow\n"
    )
    collected(monkeypatch, tmp_path, first)
    results, page = collected(monkeypatch, tmp_path, second, first)  # each once
    assert [row["command"] for row in results] == [single, two]
    assert {row["hardware"] for row in results} == {"a core"}
    assert page.startswith("above\n") and page.endswith("\nbelow\n") and "old" not in page
    assert "## 2 languages, dev set, beam 5" in page
    assert "| LSTM | 1.5 | 1.5 | 81.25% | 0.500 | 1.25 | 2.00 | 90.0% | 0.50 | 1 |" in page
    assert (
        "| two headed LSTM, ungated, language embedding, no tag summary | 2 | 2 | 75.00% |" in page
    )
    assert "| german | 81.2% | 75.0% |" in page


def test_budgets_do_not_share_a_table(tmp_path, monkeypatch):
    command = "run.sh --languages '{}' --output-alpha 1.5 --arch lstm_entmax --seed 1{}"
    outs = [
        finished_run(tmp_path / "a", command.format("a b", " --quick -- --amp"), 0.5, 60),
        finished_run(tmp_path / "b", command.format("c d", " -- --amp --gate none"), 0.25, 60),
        finished_run(tmp_path / "c", command.format("a b", " -- --gate none"), 0.75, 60),
    ]
    (tmp_path / "RESULTS.md").write_text("<!-- tables -->\n<!-- end of tables -->\n")
    _, page = collected(monkeypatch, tmp_path, *outs)
    headings = [line for line in page.splitlines() if line.startswith("##")]
    common = "## 2 languages, dev set, beam 5"
    assert headings == [common, f"{common}, `-- --amp`", f"{common}, `--quick -- --amp`"]


@pytest.mark.parametrize(("left", "message"), [("experiment.txt", "no report yet"), ("", "no exp")])
def test_unfinished_runs_are_not_added(tmp_path, monkeypatch, left, message):
    if left:
        (tmp_path / left).touch()
    with pytest.raises(SystemExit, match=message):
        collected(monkeypatch, tmp_path, tmp_path)
