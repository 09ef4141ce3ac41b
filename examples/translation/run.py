"""Translation from parallel text to BLEU: pieces, training, averaged checkpoint, search, scores."""

import re
import sys
from pathlib import Path
from typing import Dict, List, Tuple

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

import runner
from runner import fail, logged, say, script, show

HERE = Path(__file__).absolute().parent
USAGE = """
usage: run.sh --data DIR --src LANG --tgt LANG --test PREFIX --out OUT [options]
              [-- fairseq-train flags]

  --data DIR             holds train.LANG and valid.LANG (or val, dev) of both languages: raw text,
                         UTF-8, one sentence a line
  --test PREFIX          PREFIX.LANG, in DIR or as a path
  --out OUT              everything is written there; a second run continues where one stopped
  --output-alpha A       alpha of the output layer: 1 softmax, 2 sparsemax (default 1.5)
  --attention-alpha A    alpha of all attention (default 1.5)
  --recipe NAME          a file of recipes/ (default transformer)
  --vocab N              sentencepiece pieces of both languages together (default 4000)
  --max-update N         length of the training (default 3000); the learning rate ends with it
  --label-smoothing E    Fenchel-Young label smoothing (default 0)
  --seed N               (default 1)
  --beam N               width of the search (default 5)
  --average N            the last N checkpoints are averaged (default 5)

What follows -- goes to fairseq-train and wins over the recipe, for example `-- --fp16`.
"""
DEFAULTS = {
    **dict.fromkeys(("data", "src", "tgt", "test", "out"), ""),
    **{"recipe": "transformer", "output-alpha": "1.5", "attention-alpha": "1.5", "vocab": "4000"},
    **{"max-update": "3000", "label-smoothing": "0", "seed": "1", "beam": "5", "average": "5"},
}
UNKNOWN = "unknown option {} (fairseq's own flags go after --; run.sh --help lists the rest)"
PROGRESS = re.compile(rb"train_inner|valid on")

Options = Dict[str, str]


# ---- options


def read_options(arguments: List[str]) -> Tuple[Options, List[str]]:
    """All options, each of them checked, and the flags of fairseq-train."""
    given, flags = runner.read_options(arguments, DEFAULTS, USAGE, UNKNOWN)
    for name in ("data", "src", "tgt", "test", "out"):
        if not given[name]:
            fail(f"--{name} is missing (run.sh --help)")
    if given["src"] == given["tgt"]:
        fail(f"--src and --tgt are both {given['src']}")
    if not recipe_file(given["recipe"]).is_file():
        known = " ".join(sorted(path.name for path in (HERE / "recipes").glob("*.args")))
        fail(f"--recipe {given['recipe']}: no such recipe, there are: {known}")
    for flag, value in zip(flags, [*flags[1:], ""]):  # the schedule follows the length that counts
        name, equals, glued = flag.partition("=")
        if name == "--max-update":
            given["max-update"] = glued if equals else value
    check_values(given)
    if not Path(given["data"]).is_dir():
        fail(f"--data {given['data']}: no such folder")
    return given, flags


def check_values(given: Options) -> None:
    """Numbers are in their range and lose leading zeros, so that 08 and 8 are one setting."""
    for name in ("vocab", "max-update", "seed", "beam", "average"):
        if not runner.is_whole(given[name]):
            fail(f"--{name} must be a whole number, got {given[name]}")
        given[name] = str(int(given[name]))
        if name != "seed" and given[name] == "0":
            fail(f"--{name} must be at least 1, got 0")
    for name in ("output-alpha", "attention-alpha"):
        if not runner.is_alpha(given[name]):
            fail(f"--{name} must be a number >= 1 (1 is softmax), got {given[name]}")
    try:
        smoothing = float(given["label-smoothing"])
    except ValueError:
        smoothing = -1.0
    if not 0 <= smoothing < 1:
        fail(f"--label-smoothing must be a number in [0, 1), got {given['label-smoothing']}")


def recipe_file(name: str) -> Path:
    return HERE / "recipes" / f"{name}.args"


def recipe_flags(name: str) -> List[str]:
    lines = recipe_file(name).read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]


def train_flags(given: Options, tokens: int, checkpoints: Path) -> List[str]:
    """The flags of fairseq-train: schedule, recipe, options."""
    updates = int(given["max-update"])
    interval = max(1, updates // 25)
    flags = [
        *("--optimizer", "adam", "--adam-betas", "(0.9,0.98)"),
        *("--lr-scheduler", "polynomial_decay", "--warmup-updates", updates // 10),
        *("--total-num-update", updates, "--max-update", updates, "--max-tokens", tokens),
        *recipe_flags(given["recipe"]),
        *("--criterion", "entmax_loss", "--label-smoothing", given["label-smoothing"]),
        *("--output-alpha", given["output-alpha"], "--attention-alpha", given["attention-alpha"]),
        *("--seed", given["seed"], "--save-dir", checkpoints, "--no-epoch-checkpoints"),
        *("--save-interval-updates", interval, "--keep-interval-updates", given["average"]),
        *("--save-interval", "1000000", "--validate-interval", "1000000"),
        "--skip-invalid-size-inputs-valid-test",
        *("--log-format", "simple", "--log-interval", min(interval, 100)),
    ]
    return list(map(str, flags))


# ---- steps


class Run:
    """One training and the searches with it, all in ``--out``."""

    def __init__(self, given: Options, flags: List[str]) -> None:
        self.given, self.flags = given, flags
        self.src, self.tgt = given["src"], given["tgt"]
        self.data, self.out = Path(given["data"]), Path(given["out"])
        self.bin, self.text = self.out / "bin", self.out / "text"
        self.test = self.out / "test" / Path(given["test"]).name
        self.plugin = runner.plugin("--task", "translation")

    def prepare(self) -> None:
        """Pieces of all text, and fairseq's form of them."""
        given, languages = self.given, ("--src", self.src, "--tgt", self.tgt)
        settings = ("src", "tgt", "recipe", "seed", "output-alpha", "attention-alpha")
        show(
            *(HERE / "prepare.py", "train", "--data", self.data, *languages),
            *("--vocab", given["vocab"], "--out", self.text, "--setting"),
            *(f"{name}={given[name]}" for name in (*settings, "label-smoothing")),
        )
        # a test set is looked for beside the training data, then as a path
        prefix = f"{given['data']}/{given['test']}"
        if not any(Path(f"{prefix}.{language}").exists() for language in (self.src, self.tgt)):
            prefix = given["test"]
        show(
            *(HERE / "prepare.py", "test", "--prefix", prefix, *languages),
            *("--model", self.text / "spm.model", "--out", self.test),
        )
        runner.once(self.bin / ".done", self.binarise_training)
        logged(
            *(self.test / "preprocess.log", script("fairseq-preprocess"), "-s", self.src),
            *("-t", self.tgt, "--srcdict", self.bin / f"dict.{self.src}.txt"),
            *("--tgtdict", self.bin / f"dict.{self.tgt}.txt"),
            *("--testpref", self.test / "test", "--destdir", self.test / "bin"),
        )

    def binarise_training(self) -> None:
        for language in (self.src, self.tgt):  # fairseq overwrites all but these
            dictionary = self.bin / f"dict.{language}.txt"
            if dictionary.exists():
                dictionary.unlink()
        logged(
            *(self.out / "preprocess.log", script("fairseq-preprocess"), "-s", self.src),
            *("-t", self.tgt, "--joined-dictionary", "--trainpref", self.text / "train"),
            *("--validpref", self.text / "valid", "--destdir", self.bin),
        )

    def train_command(self) -> List[str]:
        # small corpora get small batches: at least 200 in an epoch, of 512 to 2048 tokens
        with open(self.text / f"train.{self.tgt}", "rb") as lines:
            tokens = min(max(512, sum(len(line.split()) for line in lines) // 200), 2048)
        flags = train_flags(self.given, tokens, self.out / "checkpoints")
        return [script("fairseq-train"), str(self.bin), *self.plugin, *flags, *self.flags]

    def train(self) -> None:
        """Trains and averages, unless the same command has come to its end."""
        command, finished, log = self.train_command(), self.out / "trained", self.out / "train.log"
        line = " ".join(command)
        if finished.exists() and finished.read_text(encoding="utf-8") == f"{line}\n":
            return
        say(f"training, the log is {log} ...")
        logged(log, *command, append=True, echo=PROGRESS)
        show(
            *(HERE / "average.py", self.out / "checkpoints"),
            *("--last", self.given["average"], "--out", self.out / "averaged.pt"),
        )
        runner.write_lines(self.out / "experiment.txt", [self.experiment()])
        runner.write_lines(finished, [line])

    def experiment(self) -> str:
        """The command of this run without the names of its folders."""
        names = ("src", "tgt", "recipe", "output-alpha", "attention-alpha", "vocab", "max-update")
        names += ("label-smoothing", "average", "seed")
        told = " ".join(f"--{name} {self.given[name]}" for name in names)
        return f"run.sh {told}" + (f" -- {' '.join(self.flags)}" if self.flags else "")

    def score(self) -> None:
        beam, found = self.given["beam"], self.test / f"beam{self.given['beam']}"
        found.mkdir(parents=True, exist_ok=True)
        decode = [*self.plugin, "--path", self.out / "averaged.pt", "--max-tokens", "4096"]
        skip = "--skip-invalid-size-inputs-valid-test"
        with open(self.test / "reference", "rb") as lines:
            say(f"decoding {sum(1 for _ in lines)} lines with beam {beam} ...")
        generated = found / "generated.part"
        logged(
            *(generated, script("fairseq-generate"), self.test / "bin", *decode),
            *("--gen-subset", "test", "--beam", beam, skip),
        )
        generated.replace(found / "generated.txt")
        logged(
            *(self.test / "validated.json", script("fairseq-validate"), self.test / "bin"),
            *(*decode, "--valid-subset", "test", "--log-format", "json", skip),
        )
        show(
            *(HERE / "score.py", found, "--test", self.test, "--model", self.text / "spm.model"),
            *("--tgt", self.tgt, "--train", self.text / f"raw.{self.tgt}"),
            *("--train-log", self.out / "train.log"),
        )


def main(arguments: List[str]) -> None:
    given, flags = read_options(arguments)
    with runner.lock(Path(given["out"])):
        run = Run(given, flags)
        run.prepare()
        run.train()
        run.score()


if __name__ == "__main__":
    runner.run(main)
