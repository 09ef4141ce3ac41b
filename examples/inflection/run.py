"""Morphological inflection with one model for many languages: prepare, train, decode, report.

    examples/inflection/run.sh --data conll2018 --languages "german finnish turkish" \\
        --setting medium --output-alpha 1.5 --attention-alpha 1.5 --out inflection

Everything goes into --out; a second run continues where the first was stopped.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Dict, List, Tuple

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

import runner
from experiment import check_settings, train
from runner import fail, logged, say, script, show

HERE = Path(__file__).absolute().parent
USAGE = """
usage: run.sh --data DIR --out DIR [options] [-- flags of fairseq-train]
  --data DIR           clone of sigmorphon/conll2018, or a folder with LANGUAGE-train-SETTING,
                       LANGUAGE-dev and LANGUAGE-test, or LANGUAGE.trn, .dev and .tst
  --out DIR            where everything is written
  --languages "A B"    languages of the one model, or all (default)
  --setting S          low, medium (default) or high
  --output-alpha A     1 is softmax, 1.5 entmax (default), 2 sparsemax
  --attention-alpha A  likewise (default 1.5)
  --arch ARCH          lstm_entmax (default) or two_headed_lstm_entmax
  --eval-split S       dev (default) or test
  --ensemble N         models, with seeds S, S + 1, ... (default 1)
  --seed S             default 1
  --max-update N       updates of each model (default: 1500 and one for every five pairs)
  --beam N             default 5
  --columns ORDER      lemma,form,features or lemma,features,form in all files (default: what most
                       lines of each file look like)
  --quick              a smaller model, at most 1500 updates: minutes for a few languages
"""
DEFAULTS = {
    **{"data": "", "out": "", "languages": "all", "setting": "medium", "output-alpha": "1.5"},
    **{"attention-alpha": "1.5", "arch": "lstm_entmax", "eval-split": "dev", "ensemble": "1"},
    **{"seed": "1", "max-update": "", "beam": "5", "quick": "no", "columns": ""},
}
PREPARE = runner.ROOT / "scripts" / "prepare_inflection.py"

Options = Dict[str, str]


# ---- options


def read_options(arguments: List[str]) -> Tuple[Options, List[str]]:
    """All options, each of them checked, and the flags of fairseq-train."""
    given, flags = runner.read_options(arguments, DEFAULTS, USAGE, "unknown option: {}")
    if not given["data"]:
        fail("--data is missing: a clone of sigmorphon/conll2018")
    if not Path(given["data"]).is_dir():
        fail(f"--data {given['data']}: no such folder")
    if not given["out"]:
        fail("--out is missing")
    check_values(given)
    for name in ("data", "out"):
        given[name] = os.path.abspath(given[name])
    return given, flags


def check_values(given: Options) -> None:
    """Numbers are in their range and lose leading zeros, so that 08 and 8 are one setting."""
    numbers = [name for name in ("ensemble", "seed", "beam", "max-update") if given[name]]
    for name in numbers:
        if not runner.is_whole(given[name]):
            fail(
                f"--ensemble, --seed, --beam and --max-update are whole numbers, got {given[name]}"
            )
        given[name] = str(int(given[name]))
    if "0" in (given["ensemble"], given["beam"], given["max-update"]):
        fail("--ensemble, --beam and --max-update are at least 1")
    for name in ("output-alpha", "attention-alpha"):
        if not runner.is_alpha(given[name]):
            fail(
                "--output-alpha and --attention-alpha are numbers >= 1 (1 is softmax), "
                f"got {given[name]}"
            )
    if given["columns"] not in ("", *runner.ORDERS):
        fail(f"--columns must be {' or '.join(runner.ORDERS)}, got {given['columns']}")
    if given["eval-split"] not in ("dev", "test"):
        fail(f"--eval-split must be dev or test, got {given['eval-split']}")


def experiment(given: Options, flags: List[str]) -> str:
    """The command that a folder belongs to."""
    names = ("setting", "output-alpha", "attention-alpha", "arch", "seed")
    line = f"run.sh --languages '{given['languages']}'"
    line += "".join(f" --{name} {given[name]}" for name in names)
    line += " --quick" if given["quick"] == "yes" else ""
    for name in ("max-update", "columns"):
        line += f" --{name} {given[name]}" if given[name] else ""
    return line + (f" -- {' '.join(flags)}" if flags else "")


def content(given: Options) -> str:
    """A name for the content of the data."""
    corpus = runner.Corpus(Path(given["data"]))
    return corpus.digest(given["languages"], f"train-{given['setting']}")


# ---- steps


class Run:
    """The models of one experiment and what they answer, all in ``--out``."""

    def __init__(self, given: Options, flags: List[str]) -> None:
        self.given, self.flags = given, flags
        self.out, self.split = Path(given["out"]), given["eval-split"]
        self.bin, self.text = self.out / "bin", self.out / "text"
        self.plugin = runner.plugin()
        # one thread: two that wait for each other are no faster here, and far slower on a busy
        # machine
        os.environ.setdefault("OMP_NUM_THREADS", "1")

    def prepare(self) -> None:
        given = self.given
        runner.once(
            self.text / ".done",
            lambda: show(
                *(PREPARE, "prepare", given["data"], self.text, "--languages", given["languages"]),
                *("--setting", given["setting"], "--eval-split", self.split),
                *(("--columns", given["columns"]) if given["columns"] else ()),
            ),
        )
        if not (self.text / f"{self.split}.tsv").is_file():
            fail(f"{given['data']} has no {self.split} files for these languages")
        runner.once(self.bin / ".done", self.binarise)

    def binarise(self) -> None:
        shutil.rmtree(self.bin, ignore_errors=True)
        tests = ["dev"] + ["test"] * (self.text / "test.tsv").is_file()
        logged(
            *(self.out / "preprocess.log", script("fairseq-preprocess"), "--joined-dictionary"),
            *("--source-lang", "lemma", "--target-lang", "form"),
            *("--trainpref", self.text / "train", "--validpref", self.text / "valid"),
            *("--testpref", ",".join(str(self.text / name) for name in tests)),
            *("--destdir", self.bin),
        )

    def updates(self) -> int:
        if self.given["max-update"]:
            return int(self.given["max-update"])
        with open(self.text / "train.form", "rb") as pairs:
            updates = 1500 + sum(1 for _ in pairs) // 5
        return min(updates, 1500) if self.given["quick"] == "yes" else updates

    def train_command(self, seed: int, folder: Path) -> List[str]:
        given, updates = self.given, self.updates()
        quick = given["quick"] == "yes"
        embedding, encoder, decoder = (64, 128, 256) if quick else (128, 200, 400)
        interval = max(250, updates // 10)
        command = [
            *(script("fairseq-train"), self.bin, *self.plugin),
            *("--task", "inflection", "--eval-inflection", "--arch", given["arch"]),
            *("--criterion", "entmax_loss", "--output-alpha", given["output-alpha"]),
            *("--attention-alpha", given["attention-alpha"]),
            *("--encoder-bidirectional", "--share-all-embeddings"),
            *("--encoder-embed-dim", embedding, "--decoder-embed-dim", embedding),
            *("--decoder-out-embed-dim", embedding, "--encoder-hidden-size", encoder),
            *("--decoder-hidden-size", decoder, "--dropout", "0.1"),
            *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1"),
            *("--batch-size", "64", "--lr", "0.003", "--lr-scheduler", "polynomial_decay"),
            *("--warmup-updates", "200", "--total-num-update", updates, "--max-update", updates),
            *("--seed", seed, "--best-checkpoint-metric", "accuracy"),
            "--maximize-best-checkpoint-metric",
            *("--validate-interval", "1000000", "--validate-interval-updates", interval),
            *("--save-interval", "1000000", "--save-interval-updates", interval),
            *("--keep-interval-updates", "1", "--no-epoch-checkpoints", "--save-dir", folder),
            *("--distributed-world-size", "1", "--log-format", "simple", "--log-interval", "100"),
        ]
        return [*map(str, command), *self.flags]

    def train(self) -> str:
        """Trains what is not trained yet; returns the checkpoints as fairseq reads them."""
        first, count = int(self.given["seed"]), int(self.given["ensemble"])
        found = train(self.out, first, count, self.updates(), self.train_command)
        return ":".join(map(str, found))

    def decode(self, checkpoints: str) -> Path:
        """The answers of the beam, in a file whose name says what answered."""
        beam = self.given["beam"]
        name = f"{self.split}-beam{beam}-models{self.given['ensemble']}"
        answers = self.out / f"{name}.txt"
        if answers.exists():
            return answers
        say(f"decoding {self.split} ...")
        tested = [split for split in ("dev", "test") if (self.text / f"{split}.tsv").is_file()]
        subset = ("test", "test1")[tested.index(self.split)]
        with runner.whole(answers) as part:
            logged(
                *(self.out / f"{name}.log", script("fairseq-generate"), self.bin, *self.plugin),
                *("--task", "translation", "--path", checkpoints, "--gen-subset", subset),
                *("--beam", beam, "--nbest", beam, "--batch-size", "256", "--max-len-a", "2"),
                *("--max-len-b", "20", "--unnormalized", "--scoring", "inflection"),
                output=part,
            )
        return answers

    def report(self, answers: Path, checkpoints: str) -> None:
        tsv, predictions = self.text / f"{self.split}.tsv", self.out / f"predictions-{self.split}"
        show(PREPARE, "restore", tsv, answers, predictions)
        with open(tsv, encoding="utf-8", newline="\n") as lines:
            forms = [line.split("\t")[2] for line in lines]
        if not all(forms):
            say(
                f"inflection: predictions={len(forms)} folder={predictions}, no accuracy: "
                f"{forms.count('')} words of the {self.split} files have no form to compare with"
            )
            return
        show(
            *(HERE / "report.py", answers, self.bin, "--checkpoints", checkpoints),
            *("--languages", self.text / "languages.txt"),
            *("--report", f"{answers.with_suffix('')}-report"),
            *(["--cpu"] if "--cpu" in self.plugin else []),
        )


def main(arguments: List[str]) -> None:
    given, flags = read_options(arguments)
    out = Path(given["out"])
    with runner.lock(out):
        check_settings(out, experiment(given, flags), content(given))
        run = Run(given, flags)
        run.prepare()
        checkpoints = run.train()
        run.report(run.decode(checkpoints), checkpoints)


if __name__ == "__main__":
    runner.run(main)
