"""From a TSV file to proven answers: prepare, train, decode, report.

    examples/transduction/run.sh --data DIR --task g2p --out g2p

Everything goes into --out; a second run continues where the first was stopped.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Dict, List

sys.path.insert(1, str(Path(__file__).absolute().parent.parent))

import experiment
import options
import runner
from entmax_data.collection import Collection
from entmax_data.spelling import Spelling, files_in
from entmax_data.transduction import Format, Item, duplicates, format_of
from options import Options
from runner import DataError, fail, logged, say, script, show

HERE = Path(__file__).absolute().parent
VALIDATION = re.compile(rb"valid on '\w+' subset")


def format_from(given: Options) -> Format:
    style = format_of(given["task"])
    return style._replace(unit=given["unit"]) if given["unit"] else style


class Run:
    """The models of one experiment and what they answer, all in ``--out``."""

    def __init__(self, given: Options, flags: List[str]) -> None:
        self.given, self.flags = given, flags
        self.out, self.split = Path(given["out"]), given["eval-split"]
        self.bin, self.text = self.out / "bin", self.out / "text"
        self.style = format_from(given)
        paths = [Path(path) for path in given["data"].split(os.pathsep)]
        self.files = Collection(paths, self.style, given["setting"], given["columns"] or None)

    # ---- text

    def prepare(self) -> None:
        runner.once(self.text / f".done-{self.split}", self.write_text)
        runner.once(self.bin / ".done", self.binarise)

    def write_text(self) -> None:
        languages = self.files.choose(self.given["languages"])
        parts = {language: self.files.train_and_dev(language) for language in languages}
        train = [item for items, _ in parts.values() for item in items]
        dev = {language: items for language, (_, items) in parts.items()}
        asked = dev
        if self.split == "test":
            asked = {language: self.files.read(language, "test").items for language in languages}
            without = [language for language, items in asked.items() if not items]
            if without:
                fail(f"no test file of {' '.join(without)}: name --languages that have one")
        for note in self.files.notes:
            say(note)
        same, different = duplicates(train)
        if same or different:
            say(
                f"training lines: {same} are copies of another, {different} sources have several "
                "answers; all are kept"
            )
        self.text.mkdir(exist_ok=True)
        spelling = Spelling.learn(self.style, train, int(self.given["subwords"]))
        spelling.save(self.text)
        self.write_pairs("train", train, spelling)
        self.write_pairs("valid", every(dev, int(self.given["valid-words"])), spelling)
        for split, items in (("dev", dev), (self.split, asked)):
            rows = ("\t".join(item) for listed in items.values() for item in listed)
            runner.write_lines(self.text / f"{split}.tsv", rows)
        runner.write_lines(self.text / "languages.txt", languages)
        n_asked = sum(map(len, asked.values()))
        say(f"{len(languages)} languages, {len(train)} training pairs, {n_asked} of {self.split}")

    def write_pairs(self, name: str, items: List[Item], spelling: Spelling) -> None:
        sources = (" ".join(spelling.source_tokens(item)) for item in items)
        targets = (" ".join(spelling.target_tokens(item)) for item in items)
        runner.write_lines(self.text / f"{name}.source", sources)
        runner.write_lines(self.text / f"{name}.target", targets)

    def binarise(self) -> None:
        shutil.rmtree(self.bin, ignore_errors=True)
        joined = ["--joined-dictionary"] if self.style.joined else []
        logged(
            *(self.out / "preprocess.log", script("fairseq-preprocess"), *joined),
            *("--source-lang", "source", "--target-lang", "target", "--destdir", self.bin),
            *("--trainpref", self.text / "train", "--validpref", self.text / "valid"),
        )
        for path in files_in(self.text):
            shutil.copy(str(path), str(self.bin / path.name))

    # ---- models

    def updates(self) -> int:
        if self.given["max-update"]:
            return int(self.given["max-update"])
        with open(self.text / "train.target", "rb") as pairs:
            updates = 1500 + sum(1 for _ in pairs) // 5
        return min(updates, 1500) if self.given["quick"] == "yes" else updates

    def train_command(self, seed: int, folder: Path) -> List[str]:
        given, updates, metric = self.given, self.updates(), self.given["metric"]
        interval = max(1, min(updates // 2, max(250, updates // 10)))
        command = [
            *(script("fairseq-train"), self.bin, *runner.plugin()),
            *("--task", "transduction", "--eval-transduction"),
            *("--arch", options.ARCHS[given["arch"]], "--criterion", "entmax_loss"),
            *("--output-alpha", given["output-alpha"]),
            *("--attention-alpha", given["attention-alpha"]),
            *options.model_flags(given, self.style.joined, updates),
            *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1"),
            *("--lr-scheduler", "polynomial_decay", "--total-num-update", updates),
            *("--max-update", updates, "--seed", seed, "--best-checkpoint-metric", metric),
            *([] if metric in options.LESS_IS_BETTER else ["--maximize-best-checkpoint-metric"]),
            *("--validate-interval", "1000000", "--validate-interval-updates", interval),
            *("--save-interval", "1000000", "--save-interval-updates", interval),
            *("--keep-interval-updates", "1", "--no-epoch-checkpoints", "--save-dir", folder),
            *("--distributed-world-size", "1", "--log-format", "simple", "--log-interval", "100"),
        ]
        return [*map(str, command), *self.flags]

    def train(self) -> List[Path]:
        return experiment.train(
            self.out,
            *(int(self.given["seed"]), int(self.given["ensemble"]), self.updates()),
            self.train_command,
            echo=VALIDATION,
        )

    # ---- answers

    def report(self, checkpoints: List[Path]) -> None:
        """The folder of the models, their answers, and the closing line."""
        given = self.given
        model = self.out / f"model-of-{given['ensemble']}"
        cpu = ["--cpu"] if "--cpu" in runner.plugin() else []
        show(
            *(HERE / "report.py", self.text / f"{self.split}.tsv", model, "--data", self.bin),
            *("--checkpoints", *checkpoints, "--task", Path(given["task"]).stem, *cpu),
            *("--dev", self.text / "dev.tsv", "--beam", given["beam"]),
            *("--abstain", given["abstain"], "--split", self.split),
        )


def every(dev: Dict[str, List[Item]], total: int) -> List[Item]:
    """About ``total`` items, spread evenly over each language, as many of each as there are."""
    each = max(20, total // len(dev))
    return [
        items[i * len(items) // min(each, len(items))]
        for items in dev.values()
        for i in range(min(each, len(items)))
    ]


def main(arguments: List[str]) -> None:
    given, flags = options.read(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two that wait for each other are far slower
    try:
        with runner.lock(Path(given["out"])):
            run = Run(given, flags)
            command = options.experiment(given, flags)
            experiment.check_settings(Path(given["out"]), command, run.files.digest())
            run.prepare()
            run.report(run.train())
    except (DataError, ValueError) as error:
        fail(str(error))


if __name__ == "__main__":
    runner.run(main)
