"""A language model with a sparse output: prepare, train, measure what it predicts and writes.

    examples/language_model/run.sh --text plays.txt --output-alpha 1.2 --seeds 3 --out lm-1.2

Everything goes into --out; a second run continues where the first was stopped.
"""

import hashlib
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
usage: run.sh --text FILE --out DIR [options] [-- flags of fairseq-train]
  --text FILE          any text in UTF-8, of passages that blank lines part
  --out DIR            where everything is written
  --level L            characters (default) or words
  --output-alpha A     1 is softmax, 1.2, 1.5 (default), 2 is sparsemax
  --seeds N            models, with seeds S, S + 1, ... (default 1)
  --seed S             default 1
  --max-update N       updates of each model (default 2000)
  --passages N         passages of the test part that are continued (default 200)
"""
DEFAULTS = {
    **{"text": "", "out": "", "level": "characters", "output-alpha": "1.5", "seeds": "1"},
    **{"seed": "1", "max-update": "2000", "passages": "200"},
}
NUMBERS = ("seeds", "seed", "max-update", "passages")
# the symbols of the test passages that are given, those that are written, and those between words
GIVEN = {"characters": ("32", "128", "▁⏎"), "words": ("8", "32", "")}
STRATEGIES = ("full", "greedy", "nucleus=0.9", "nucleus=0.95", "topk=10", "temperature=0.8")

Options = Dict[str, str]


def read_options(arguments: List[str]) -> Tuple[Options, List[str]]:
    """All options, each of them checked, and the flags of fairseq-train."""
    given, flags = runner.read_options(arguments, DEFAULTS, USAGE, "unknown option: {}")
    if not Path(given["text"]).is_file():
        fail(f"--text names a text file, got {given['text']!r}")
    if not given["out"]:
        fail("--out is missing")
    if given["level"] not in GIVEN:
        fail(f"--level must be {' or '.join(GIVEN)}, got {given['level']}")
    if not runner.is_alpha(given["output-alpha"]):
        fail(f"--output-alpha is a number >= 1 (1 is softmax), got {given['output-alpha']}")
    for name in NUMBERS:
        if not runner.is_whole(given[name]) or int(given[name]) < 1:
            fail(f"--{name} is a whole number, at least 1, got {given[name]}")
        given[name] = str(int(given[name]))
    given["text"], given["out"] = map(os.path.abspath, (given["text"], given["out"]))
    return given, flags


def experiment(given: Options, flags: List[str]) -> str:
    """The command that a folder belongs to."""
    names = ("level", "output-alpha", "seed", "max-update")
    line = "run.sh" + "".join(f" --{name} {given[name]}" for name in names)
    return line + (f" -- {' '.join(flags)}" if flags else "")


class Run:
    """The models of one experiment and what they write, all in ``--out``."""

    def __init__(self, given: Options, flags: List[str]) -> None:
        self.given, self.flags = given, flags
        self.out = Path(given["out"])
        self.bin, self.text = self.out / "bin", self.out / "text"
        self.plugin = runner.plugin()
        # one thread: two that wait for each other are no faster here
        os.environ.setdefault("OMP_NUM_THREADS", "1")

    def prepare(self) -> None:
        source = (self.given["text"], self.text, self.given["level"])
        runner.once(self.text / ".done", lambda: show(HERE / "prepare.py", *source))
        runner.once(self.bin / ".done", self.binarise)

    def binarise(self) -> None:
        shutil.rmtree(self.bin, ignore_errors=True)
        rare = ("--thresholdsrc", "2") if self.given["level"] == "words" else ()
        logged(
            *(self.out / "preprocess.log", script("fairseq-preprocess"), "--only-source", *rare),
            *("--trainpref", self.text / "train", "--validpref", self.text / "valid"),
            *("--testpref", self.text / "test", "--destdir", self.bin),
        )

    def train_command(self, seed: int, folder: Path) -> List[str]:
        """The same for every alpha: nothing is tuned to one of them."""
        updates = int(self.given["max-update"])
        interval = max(100, updates // 6)
        command = [
            *(script("fairseq-train"), self.bin, *self.plugin, "--task", "language_modeling"),
            *("--arch", "transformer_lm_entmax", "--criterion", "entmax_loss"),
            *("--output-alpha", self.given["output-alpha"], "--attention-alpha", "1"),
            *("--decoder-layers", "2", "--decoder-embed-dim", "96"),
            *("--decoder-ffn-embed-dim", "384", "--decoder-attention-heads", "4"),
            *("--share-decoder-input-output-embed", "--dropout", "0.1"),
            *("--tokens-per-sample", "128", "--sample-break-mode", "none", "--batch-size", "8"),
            *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1"),
            *("--lr", "0.003", "--lr-scheduler", "polynomial_decay", "--warmup-updates", "100"),
            *("--total-num-update", updates, "--max-update", updates, "--seed", seed),
            *("--validate-interval", "1000000", "--validate-interval-updates", interval),
            *("--save-interval", "1000000", "--save-interval-updates", interval),
            *("--keep-interval-updates", "1", "--no-epoch-checkpoints", "--save-dir", folder),
            *("--distributed-world-size", "1", "--log-format", "simple", "--log-interval", "100"),
        ]
        return [*map(str, command), *self.flags]

    def train(self) -> List[Path]:
        given = self.given
        first, count, updates = (int(given[name]) for name in ("seed", "seeds", "max-update"))
        return train(self.out, first, count, updates, self.train_command)

    def measure(self, checkpoint: Path) -> None:
        """What the model predicts and writes, as numbers beside its checkpoint."""
        begin, length, blanks = GIVEN[self.given["level"]]
        found = checkpoint.parent / "generation.json"
        if found.exists():
            return
        say(f"measuring {checkpoint.parent.name} ...")
        show(
            *("-m", "fairseq_entmax.analysis", "generation", self.bin, "--json", found),
            *("--model", f"{self.given['output-alpha']}={checkpoint}", "--given", begin),
            *("--length", length, "--passages", self.given["passages"], "--sampling", *STRATEGIES),
            f"--blanks={blanks}",
            *(["--cpu"] if "--cpu" in self.plugin else []),
        )


def main(arguments: List[str]) -> None:
    given, flags = read_options(arguments)
    out = Path(given["out"])
    with runner.lock(out):
        digest = hashlib.sha256(Path(given["text"]).read_bytes()).hexdigest()
        check_settings(out, experiment(given, flags), digest)
        run = Run(given, flags)
        run.prepare()
        for checkpoint in run.train():
            run.measure(checkpoint)


if __name__ == "__main__":
    runner.run(main)
