"""Inflection data for fairseq: many languages' (lemma, form, features) files into one corpus.

    prepare_inflection.py prepare DIR OUT --languages "german turkish" --setting medium
    prepare_inflection.py restore OUT/dev.tsv generated.txt PREDICTIONS
    prepare_inflection.py split UNIMORPH_FILE DIR --language german

DIR is a clone of sigmorphon/conll2018, or any folder with files LANGUAGE-train-SETTING,
LANGUAGE-dev and LANGUAGE-test, tab-separated as in UniMorph. ``prepare`` writes
{train,valid,dev,test}.{lemma,form} and {dev,test}.tsv, which ``restore`` joins with the answers.
``split`` makes such files of one that is not split, as in the repositories of UniMorph.
"""

import argparse
import os
import random
import sys
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fairseq_entmax.modules.symbols import (
    feature_symbol,
    language_symbol,
    symbols_to_word,
    word_to_symbols,
)

FOLDERS = ("", "task1/all", "task1/surprise", "all", "surprise")
VALID_WORDS = 6000


class Entry(NamedTuple):
    """One line of a data file."""

    language: str
    lemma: str
    form: str
    features: str

    @property
    def source(self) -> str:
        """Characters of the lemma, language, features."""
        features = [feature_symbol(f.strip()) for f in self.features.split(";") if f.strip()]
        tags = [language_symbol(self.language), *features]
        return " ".join(word_to_symbols(self.lemma) + tags)

    @property
    def target(self) -> str:
        return " ".join(word_to_symbols(self.form))


# --- reading ----------------------------------------------------------------------------------


def read(path: Path, language: str) -> List[Entry]:
    """All entries of a file, each of them checked; empty lines are not entries."""
    entries = []
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8").lstrip("\ufeff").rstrip("\r\n")
                if line.strip():
                    entries.append(_checked(line, language))
            except ValueError as error:  # also what is not UTF-8
                raise SystemExit(f"{path}, line {number}: {error}") from None
    return entries


def _checked(line: str, language: str) -> Entry:
    fields = line.split("\t")
    if len(fields) != 3:
        raise ValueError(
            f"expected lemma, form and features between tabs, got {len(fields)} fields: {line!r}"
        )
    entry = Entry(language, *fields)
    assert entry.source and entry.target  # raise ValueError for what has no symbol
    return entry


class Corpus:
    """The files of a data folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SystemExit(f"{folder}: no such folder (a clone of sigmorphon/conll2018?)")
        self.folder = folder
        self.roots = [folder / name for name in FOLDERS if (folder / name).is_dir()]

    def path(self, language: str, part: str) -> Optional[Path]:
        paths = (root / f"{language}-{part}" for root in self.roots)
        return next((path for path in paths if path.is_file()), None)

    def languages(self, part: str) -> List[str]:
        ending = f"-{part}"
        names = {path.name for root in self.roots for path in root.glob(f"*{ending}")}
        return sorted(name[: -len(ending)] for name in names)

    def read(self, language: str, part: str) -> List[Entry]:
        path = self.path(language, part)
        return [] if path is None else read(path, language)

    def require(self, language: str, part: str) -> List[Entry]:
        entries = self.read(language, part)
        if not entries:
            have = sorted(path.name for root in self.roots for path in root.glob(f"{language}-*"))
            raise SystemExit(
                f"{self.folder}: no pairs in {language}-{part} "
                f"(files of this language: {', '.join(have) or 'none'}; "
                f"languages with such a file: {' '.join(self.languages(part)) or 'none'})"
            )
        return entries


def choose(corpus: Corpus, names: str, train_part: str, eval_split: str) -> List[str]:
    """The languages named; for ``all`` those that can be trained and evaluated."""
    if names.split() != ["all"]:
        chosen = list(dict.fromkeys(names.replace(",", " ").split()))
        if not chosen:
            raise SystemExit("no languages: name some, or say all")
        return chosen
    evaluated = corpus.languages(eval_split)
    trained = set(corpus.languages(train_part))
    left_out = [language for language in evaluated if language not in trained]
    if left_out:
        print(f"without {train_part}, left out: {' '.join(left_out)}")
    if len(left_out) == len(evaluated):
        raise SystemExit(
            f"{corpus.folder}: no language has both LANGUAGE-{train_part} and LANGUAGE-{eval_split}"
        )
    return [language for language in evaluated if language in trained]


# --- writing ----------------------------------------------------------------------------------


def write(path: Path, lines: Iterable[str]) -> None:
    """All or nothing: a file that exists is complete."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)
    os.replace(temporary, path)


def write_split(out: Path, split: str, entries: Sequence[Entry]) -> None:
    write(out / f"{split}.lemma", (entry.source for entry in entries))
    write(out / f"{split}.form", (entry.target for entry in entries))


def sample(by_language: Dict[str, List[Entry]], total: int, seed: int) -> List[Entry]:
    """About ``total`` entries, as many of each language as there are, for validation."""
    each = max(20, total // len(by_language))
    rng = random.Random(seed)
    return [
        entry
        for entries in by_language.values()
        for entry in (entries if len(entries) <= each else rng.sample(entries, each))
    ]


def prepare(args: argparse.Namespace) -> None:
    corpus = Corpus(args.data)
    train_part = f"train-{args.setting}"
    languages = choose(corpus, args.languages, train_part, args.eval_split)
    train = {language: corpus.require(language, train_part) for language in languages}
    splits = {
        split: {language: corpus.read(language, split) for language in languages}
        for split in ("dev", "test")
    }
    for language in languages:
        corpus.require(language, args.eval_split)
        if not splits["dev"][language]:
            held_out = train[language][::20]
            train[language] = [e for i, e in enumerate(train[language]) if i % 20]
            splits["dev"][language] = held_out
            print(f"{language}: no dev file, {len(held_out)} training pairs held out in its place")

    args.out.mkdir(parents=True, exist_ok=True)
    write_split(args.out, "valid", sample(splits["dev"], args.valid_words, args.seed))
    for split in ("dev", "test"):
        entries = [entry for listed in splits[split].values() for entry in listed]
        if entries:
            write_split(args.out, split, entries)
            write(args.out / f"{split}.tsv", ("\t".join(entry) for entry in entries))
    pairs = [entry for listed in train.values() for entry in listed]
    write_split(args.out, "train", pairs)
    write(args.out / "languages.txt", languages)
    print(f"{len(languages)} languages, {len(pairs)} training pairs ({args.setting})")


def restore(args: argparse.Namespace) -> None:
    """Lemma, predicted form and features, a file for each language."""
    from fairseq_entmax.analysis import read_generation

    with open(args.tsv, encoding="utf-8", newline="\n") as file:
        entries = [Entry(*line.rstrip("\n").split("\t")) for line in file]
    sentences = read_generation(args.generated, len_penalty=0)
    if [sentence.id for sentence in sentences] != list(range(len(entries))):
        raise SystemExit(
            f"{args.generated} answers {len(sentences)} words, {args.tsv} has {len(entries)}: "
            "they are not of one run"
        )
    answers: Dict[str, List[str]] = {}
    for entry, sentence in zip(entries, sentences):
        form = symbols_to_word(sentence.candidates[0].tokens)
        answers.setdefault(entry.language, []).append(f"{entry.lemma}\t{form}\t{entry.features}")
    args.out.mkdir(parents=True, exist_ok=True)
    for language, lines in answers.items():
        write(args.out / f"{language}.tsv", lines)


def split(args: argparse.Namespace) -> None:
    """Train, dev and test files with no lemma in two of them."""
    entries = read(args.file, args.language)
    rng = random.Random(args.seed)
    lemmas = sorted({entry.lemma for entry in entries})
    rng.shuffle(lemmas)
    sizes = {f"train-{args.setting}": args.train, "dev": args.dev, "test": args.test}
    args.out.mkdir(parents=True, exist_ok=True)
    begin = 0
    for part, size in sizes.items():
        end = begin + round(size * len(lemmas) / sum(sizes.values()))
        own = set(lemmas[begin:end])
        pairs = [entry for entry in entries if entry.lemma in own]
        chosen = rng.sample(pairs, min(size, len(pairs)))
        name = f"{args.language}-{part}"
        write(args.out / name, ("\t".join(entry[1:]) for entry in chosen))
        print(f"{name}: {len(chosen)} pairs of {len({e.lemma for e in chosen})} lemmas")
        begin = end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prepare", help="data files into fairseq text")
    one.add_argument("data", type=Path, help="a clone of sigmorphon/conll2018, or a flat folder")
    one.add_argument("out", type=Path, help="folder to write into")
    one.add_argument("--languages", default="all", help="names in one string, or all (default)")
    one.add_argument("--setting", default="medium", help="low, medium or high (default: medium)")
    one.add_argument("--eval-split", choices=("dev", "test"), default="dev")
    one.add_argument("--valid-words", type=int, default=VALID_WORDS, help="dev words for valid")
    one.add_argument("--seed", type=int, default=1, help="of the choice of the valid words")
    one.set_defaults(run=prepare)
    two = commands.add_parser("restore", help="answers of fairseq-generate into data files")
    two.add_argument("tsv", type=Path, help="dev.tsv or test.tsv, as prepared")
    two.add_argument("generated", type=Path, help="output of fairseq-generate")
    two.add_argument("out", type=Path, help="folder to write LANGUAGE.tsv into")
    two.set_defaults(run=restore)
    three = commands.add_parser("split", help="one file into train, dev and test")
    three.add_argument("file", type=Path, help="tab-separated: lemma, form, features")
    three.add_argument("out", type=Path, help="folder to write LANGUAGE-train-SETTING, ... into")
    three.add_argument("--language", required=True, help="name of the language")
    three.add_argument("--setting", default="medium", help="name of the setting")
    for part in ("train", "dev", "test"):
        three.add_argument(f"--{part}", type=int, default=1000, help="pairs (default: 1000)")
    three.add_argument("--seed", type=int, default=1)
    three.set_defaults(run=split)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
