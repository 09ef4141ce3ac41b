"""examples/transduction/run.sh as a user runs it: one table of words, one answer folder."""

import functools
import json
import re
import subprocess
import sys

import pytest

from .commands import REPO, TIMEOUT, attempt_script, environment

RUN = REPO / "examples" / "transduction" / "run.sh"
SYLLABLES = [a + b for a in "ptkmnls" for b in "aeiou"]
LAST = re.compile(
    r"^transduction: task=segmentation languages=1 accuracy=([01]\.\d{4}) wer=(\d+\.\d\d) "
    r"per=\d+\.\d\d f1=([01]\.\d{4}) levenshtein=\d+\.\d{4} support=\d+\.\d{3} "
    r"exact=[01]\.\d{4} unique=([01]\.\d{4}) unique_accuracy=([01]\.\d{4}|nan)$"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language of stems and two endings, in one table without a dev part."""
    folder = tmp_path_factory.mktemp("transduction")
    stems = [SYLLABLES[i % 35] + SYLLABLES[(i * 3 + 1) % 35] for i in range(105)]
    lines = [f"{s}{e}\t{s} @@{e}\n" for i, s in enumerate(stems) for e in (("r", "sh")[i % 2],)]
    (folder / "aish.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


attempt = functools.partial(attempt_script, RUN)

OPTIONS = ["--data", "aish.tsv", "--task", "segmentation", "--out", "out", "--quick"]
OPTIONS += ["--max-update", 40, "--subwords", 40]
TINY = ["--", "--lr", 0.02, "--warmup-updates", 1, "--encoder-hidden-size", 24, "--dropout", 0]
TINY += ["--decoder-hidden-size", 48, "--batch-size", 16, "--validate-interval-updates", 20]


@pytest.fixture(scope="module")
def finished(folder):
    return attempt(folder, *OPTIONS, *TINY)


def test_ends_in_the_summary(finished, folder):
    code, output = finished
    assert code == 0, output
    accuracy, wer, f1, _, _ = map(float, LAST.match(output.splitlines()[-1]).groups())
    assert "training lines held out in its place" in output and "| f1 " in output
    report = json.loads((folder / "out" / "dev-beam5-models1-report.json").read_text())
    assert report["mean"]["f1"]["value"] == pytest.approx(100 * f1, abs=0.01)
    assert wer == pytest.approx(100 * (1 - accuracy), abs=0.01)
    # what the files say themselves
    gold = dict(line.split("\t") for line in (folder / "aish.tsv").read_text().splitlines())
    answers = (folder / "out" / "predictions-dev" / "aish.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in answers]
    assert sum(gold[row[0]] == row[1] for row in rows) / len(rows) == pytest.approx(
        accuracy, abs=1e-4
    )
    assert {row[2] for row in rows} <= {"given", "withheld"}


def test_the_folder_answers_alone(finished, folder):
    (folder / "alone").mkdir()
    model = (folder / "out" / "model-of-1").rename(folder / "alone" / "model")
    done = subprocess.run(
        [sys.executable, "-m", "fairseq_entmax", "predict", str(model), "--cpu", "--beam", "1"],
        cwd=str(folder),
        env=environment(),
        input="patar\nZar\n",
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    words = [line.split("\t") for line in done.stdout.splitlines()]
    assert [word[0] for word in words] == ["patar", "Zar"] and words[1][-1] == '["Z"]'
    assert "2 words in" in done.stderr


def test_a_second_run_does_what_is_missing(finished, folder):
    checkpoint = folder / "out" / "model-1" / "checkpoint_best.pt"
    trained = checkpoint.stat().st_mtime
    code, output = attempt(folder, *OPTIONS, *TINY)
    assert code == 0 and "training" not in output.splitlines()[0], output
    assert output.splitlines()[-1] == finished[1].splitlines()[-1]
    assert checkpoint.stat().st_mtime == trained
    code, output = attempt(folder, *OPTIONS, "--seed", 7, *TINY)
    assert code == 2 and "holds another experiment" in output
