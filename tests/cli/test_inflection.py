"""examples/inflection/run.sh as a user runs it, on a made-up language."""

import functools
import json
import re
import shutil

import pytest

from .commands import REPO, attempt_script, run

RUN = REPO / "examples" / "inflection" / "run.sh"
SYLLABLES = [a + b for a in "ptkmnls" for b in "aeiou"]
PLURALS = {"aish": "r", "bish": "n"}
LAST = re.compile(
    r"^inflection: languages=2 accuracy=([01]\.\d{4}) levenshtein=(\d+\.\d{4}) "
    r"support=(\d+\.\d{3}) exact=([01]\.\d{4})$"
)


def words(start, count):
    return [SYLLABLES[i % 35] + SYLLABLES[(i * 3 + 1) % 35] for i in range(start, start + count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two languages that form their plurals each with a letter of its own."""
    folder = tmp_path_factory.mktemp("inflection")
    (folder / "data").mkdir()
    for language, plural in PLURALS.items():
        for part, listed in {
            "train-medium": words(0, 60),
            "dev": words(60, 9),
            "test": words(70, 5),
        }.items():
            lines = [f"{w}\t{w}{plural}\tN;PL\n" for w in listed]
            (folder / "data" / f"{language}-{part}").write_text("".join(lines), encoding="utf-8")
    return folder


attempt = functools.partial(attempt_script, RUN)

COMMON = ["--data", "data", "--languages", "aish bish", "--setting", "medium", "--quick"]
COMMON += ["--output-alpha", 1.5, "--attention-alpha", 1.5, "--out", "out", "--max-update", 30]
COMMON += ["--arch", "two_headed_lstm_entmax"]
TINY = ["--", "--lr", 0.02, "--warmup-updates", 1, "--encoder-hidden-size", 24, "--dropout", 0]
TINY += ["--decoder-hidden-size", 48, "--language-embed-dim", 4, "--tag-summary-dim", 6]
TINY += ["--validate-interval-updates", 15, "--save-interval-updates", 15]


@pytest.fixture(scope="module")
def finished(folder):
    return attempt(folder, *COMMON, *TINY)


def test_ends_in_the_summary(finished, folder):
    code, output = finished
    assert code == 0, output
    accuracy, distance, support, exact = map(float, LAST.match(output.splitlines()[-1]).groups())
    report = json.loads(next((folder / "out").glob("dev-*-report.json")).read_text())
    assert report["mean"]["accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert set(report["languages"]) == set(PLURALS)
    # what the files say themselves
    right, lines = 0, 0
    for language in PLURALS:
        gold = (folder / "data" / f"{language}-dev").read_text().splitlines()
        answers = (folder / "out" / "predictions-dev" / f"{language}.tsv").read_text().splitlines()
        assert [a.split("\t")[::2] for a in answers] == [g.split("\t")[::2] for g in gold]
        right += sum(a == g for a, g in zip(answers, gold))
        lines += len(gold)
    assert accuracy == pytest.approx(right / lines, abs=1e-4)
    assert (distance == 0) == (right == lines)
    assert support >= 1 and 0 <= exact <= 1


def test_keeps_the_checkpoint_of_the_best_accuracy(finished, folder):
    log = (folder / "out" / "model-1" / "train.log").read_text(encoding="utf-8")
    found = [float(a) for a in re.findall(r"valid on .* \| accuracy ([\d.]+)", log)]
    assert len(found) == 2
    best = re.findall(r"checkpoint_best\.pt \(.* score ([\d.]+)\)", log)
    assert float(best[-1]) == max(found)


def test_a_second_run_does_what_is_missing(finished, folder):
    trained = (folder / "out" / "model-1" / "checkpoint_best.pt").stat().st_mtime
    code, output = attempt(folder, *COMMON, "--ensemble", 2, "--eval-split", "test", *TINY)
    assert code == 0 and LAST.match(output.splitlines()[-1]), output
    assert "training 2 of 2" in output and "training 1 of 2" not in output
    assert trained == (folder / "out" / "model-1" / "checkpoint_best.pt").stat().st_mtime
    assert len((folder / "out" / "predictions-test" / "aish.tsv").read_text().splitlines()) == 5


def test_another_experiment_is_not_mixed_in(finished, folder):
    code, output = attempt(folder, *COMMON, "--seed", 7, *TINY)
    assert code == 2
    assert "holds another experiment" in output


def test_other_data_are_not_mixed_in(finished, folder):
    """The old figures under the name of new data would be wrong without a word."""
    shutil.copytree(str(folder / "data"), str(folder / "moved"))
    same = attempt(folder, *COMMON, "--data", "moved", *TINY)
    assert same[0] == 0 and LAST.match(same[1].splitlines()[-1]), same[1]
    with open(folder / "moved" / "aish-dev", "a", encoding="utf-8") as dev:
        dev.write("papa\tpapar\tN;PL\n")
    code, output = attempt(folder, *COMMON, "--data", "moved", *TINY)
    assert code == 2
    assert output.splitlines()[-1].endswith("an experiment on other data: choose another --out")


def test_lines_of_every_kind_interactively(finished, folder):
    """Stock interactive answers lines without features, with unknown symbols, of one letter."""
    lines = ["t a <lang:aish> <N> <PL>", "p", "p <lang:aish> <NEW>", "Z ? <N>", "<N>"]
    output = run(
        *("fairseq-interactive", folder / "out" / "bin", "--user-dir", "fairseq_entmax", "--cpu"),
        *("--path", folder / "out" / "model-1" / "checkpoint_last.pt", "--beam", 3),
        *("--buffer-size", 5, "--batch-size", 5, "--print-alignment", "hard"),
        stdin="".join(line + "\n" for line in lines),
    )
    assert len(re.findall(r"^H-\d", output, re.M)) == len(lines)
    alignments = re.findall(r"^A-(\d)\t(.*)$", output, re.M)
    assert len(alignments) == len(lines)
    for number, alignment in alignments:
        length = len(lines[int(number)].split()) + 1
        assert all(int(pair.split("-")[0]) < length for pair in alignment.split())


def test_covered_files_of_2023_are_answered(folder):
    """Lemma, features, form; no forms in the test file; names of their own; one language."""
    data = folder / "data-2023"
    data.mkdir()
    for name, listed in {"trn": words(0, 40), "dev": words(60, 9)}.items():
        lines = [f"{w}\tN;PL\t{w}r\n" for w in listed]
        (data / f"aish.{name}").write_text("".join(lines), encoding="utf-8")
    lemmas = words(70, 5)
    (data / "aish.tst").write_text("".join(f"{w}\tN;PL\n" for w in lemmas), encoding="utf-8")
    given = ["--data", "data-2023", "--out", "out-2023", "--quick", "--max-update", 2]
    code, output = attempt(folder, *given, "--eval-split", "test")
    assert code == 0, output
    assert "columns lemma,features,form: 2 files (aish.trn, aish.dev)" in output
    assert "columns lemma,features: 1 files (aish.tst)" in output
    assert output.splitlines()[-1] == (
        f"inflection: predictions=5 folder={folder}/out-2023/predictions-test, no accuracy: "
        "5 words of the test files have no form to compare with"
    )
    answers = folder / "out-2023" / "predictions-test" / "aish.tsv"
    rows = [line.split("\t") for line in answers.read_text(encoding="utf-8").splitlines()]
    assert [(lemma, features) for lemma, _, features in rows] == [(w, "N;PL") for w in lemmas]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run.sh: --data is missing"),
        (["--data"], "run.sh: --data needs a value"),
        (["--data", "data"], "run.sh: --out is missing"),
        (["--data", "nothing", "--out", "o"], "run.sh: --data nothing: no such folder"),
        (["--colour", "red"], "run.sh: unknown option: --colour"),
        (["--data", "data", "--out", "o", "--seed", "x"], "are whole numbers, got x"),
        (["--data", "data", "--out", "o", "--ensemble", "0"], "and --max-update are at least 1"),
        (["--data", "data", "--out", "o", "--output-alpha", "0.5"], "(1 is softmax), got 0.5"),
        (["--data", "data", "--out", "o", "--columns", "form"], "lemma,features,form, got form"),
        (["--data", "data", "--out", "o", "--eval-split", "valid"], "must be dev or test, got val"),
        (["--data", "data", "--out", "o", "--attention-alpha", "nan"], "(1 is softmax), got nan"),
        (["--data", "data", "--out", "o", "--languages", "cish"], "no pairs in cish-train-medium"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value else "",
)
def test_bad_input_is_named(folder, arguments, message):
    code, output = attempt(folder, *arguments)
    shutil.rmtree(str(folder / "o"), ignore_errors=True)
    assert code != 0
    assert message in output
