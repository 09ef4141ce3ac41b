"""The demo's data and report."""

import importlib.util
import io
import random
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parent.parent.parent / "examples" / "demo"


def load(name):
    spec = importlib.util.spec_from_file_location(f"demo_{name}", DEMO / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prepare, report = load("prepare"), load("report")


def paradigm(lemma, size=4):
    return [prepare.Entry(lemma, (str(i),), lemma + str(i)) for i in range(size)]


def test_no_lemma_is_in_two_splits():
    paradigms = [paradigm(f"w{i % 40}") for i in range(50)]  # ten lemmas occur twice
    sizes = {"test": 20, "train": 60}
    splits = prepare.split_by_lemma(paradigms, sizes, random.Random(0), cells=3)
    lemmas = {split: {entry.lemma for entry in entries} for split, entries in splits.items()}
    assert {split: len(entries) for split, entries in splits.items()} == sizes
    assert not lemmas["test"] & lemmas["train"]


def test_too_few_words_are_said():
    with pytest.raises(SystemExit, match="only 3 of 5 pairs for train"):
        prepare.split_by_lemma([paradigm("a")], {"train": 5}, random.Random(0), cells=3)


def test_real_words(tmp_path):
    pytest.importorskip("german_nouns", reason="needs the extra [demo]")
    pytest.importorskip("pymorphy3", reason="needs the extra [demo]")
    sizes = ["--train", "60", "--valid", "10", "--test", "10"]
    command = [sys.executable, str(DEMO / "prepare.py"), str(tmp_path), *sizes]
    subprocess.run(command, check=True, capture_output=True)
    for split, size in (("train", 120), ("valid", 20), ("test", 20)):
        lemmas = (tmp_path / f"{split}.lemma").read_text(encoding="utf-8").splitlines()
        forms = (tmp_path / f"{split}.form").read_text(encoding="utf-8").splitlines()
        assert len(lemmas) == len(forms) == size
        assert sum("<ru> <V>" in line for line in lemmas) == size // 2
        assert sum("<de> <N>" in line for line in lemmas) == size // 2
        assert all(form and "<" not in form for form in forms)


def test_known_german_cells():
    pytest.importorskip("german_nouns", reason="needs the extra [demo]")
    wanted = {("Haus", "dat", "pl"): "Häusern", ("Vater", "gen", "sg"): "Vaters"}
    found = {}
    for cells in prepare.german_paradigms():
        for entry in cells:
            key = (entry.lemma, *entry.features[-2:])
            if key in wanted:
                found[key] = entry.form
    assert found == wanted


def test_report(tmp_path, monkeypatch, capsys):
    generated, validated = tmp_path / "g.txt", tmp_path / "v.json"
    generated.write_text(
        "S-0\ta b <de> <N>\nT-0\tx\nH-0\t-0.5\tx\nH-0\t-0.5\ty\n"
        "S-1\tc <ru> <V>\nT-1\tz\nH-1\t-1.0\tq\n",
        encoding="utf-8",
    )
    validated.write_text('... | INFO | test | {"test_loss": "1", "test_support": "1.25"}\n')
    out = tmp_path / "report.md"
    paths = [generated, validated, out, tmp_path / "report.html"]
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, paths)])
    report.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"demo: accuracy=0.5000 support=1.250 exact=0.5000 report={paths[-1]}"
    text = out.read_text(encoding="utf-8")
    assert "| German nouns | 1 | 100.0% | 100.0% |" in text
    assert "ab de N (answer: x)" in text and "50.00%  x <-" in text


LOG = "".join(f"... num_updates={n}, lr=0.1\n" for n in (50, 100))


@pytest.mark.parametrize("ended", [True, False], ids=["done", "failed"])
def test_training_is_one_line_and_its_log_is_whole(tmp_path, ended):
    log = tmp_path / "train.log"
    text = LOG + ("... done training in 1 seconds\n" if ended else "RuntimeError: no memory\n")
    done = subprocess.run(
        [sys.executable, str(DEMO / "progress.py"), str(log), "100"],
        input=text,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stdout == f"training, 100 updates (log: {log}) ...\n"
    assert log.read_text(encoding="utf-8") == text
    assert (done.returncode == 0) == ended
    assert ("no memory" in done.stderr and str(log) in done.stderr) == (not ended)


def test_the_bar_stands_where_the_training_does():
    progress = load("progress")

    class Bar:
        n = 0

        def update(self, more):
            self.n += more

    bar = Bar()
    progress.follow(LOG.splitlines(True), io.StringIO(), bar)
    assert bar.n == 100
