"""Inflection data for fairseq: many languages' (lemma, form, features) files into one corpus.

    prepare_inflection.py prepare DIR OUT --languages "german turkish" --setting medium
    prepare_inflection.py restore OUT/dev.tsv generated.txt PREDICTIONS
    prepare_inflection.py split UNIMORPH_FILE DIR --language german

DIR is a clone of sigmorphon/conll2018, or any folder with files LANGUAGE-train-SETTING,
LANGUAGE-dev and LANGUAGE-test, or LANGUAGE.trn, .dev and .tst, tab-separated: lemma, form, features
or lemma, features, form (seen from the lines, or told by ``--columns``). ``prepare`` writes
{train,valid,dev,test}.{lemma,form} and {dev,test}.tsv, which ``restore`` joins with the answers. A
test file without forms (lemma, features) can be answered, not scored. ``split`` makes such files of
one that is not split, as in the repositories of UniMorph.
"""

import argparse
import random
import sys
from pathlib import Path
from typing import Dict, List, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fairseq_entmax.data.files import write_lines
from fairseq_entmax.data.inflection import ORDERS, Corpus, DataError, Entry, read
from fairseq_entmax.data.symbols import symbols_to_word

VALID_WORDS = 6000


def write_split(out: Path, split: str, entries: Sequence[Entry]) -> None:
    write_lines(out / f"{split}.lemma", (entry.source for entry in entries))
    write_lines(out / f"{split}.form", (entry.target for entry in entries))


def sample(by_language: Dict[str, List[Entry]], total: int, seed: int) -> List[Entry]:
    """About ``total`` entries, as many of each language as there are, for validation."""
    each = max(20, total // len(by_language))
    rng = random.Random(seed)
    return [
        entry
        for entries in by_language.values()
        for entry in (entries if len(entries) <= each else rng.sample(entries, each))
    ]


def say_columns(corpus: Corpus) -> None:
    """By which order of columns the files were read."""
    for columns, names in sorted(corpus.taken.items(), key=lambda item: len(item[1])):
        which = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        print(f"columns {columns}: {len(names)} files ({which})")


def prepare(args: argparse.Namespace) -> None:
    corpus = Corpus(args.data, args.columns)
    train_part = f"train-{args.setting}"
    languages, left_out = corpus.choose(args.languages, train_part, args.eval_split)
    if left_out:
        print(f"without {train_part}, left out: {' '.join(left_out)}")
    train = {language: corpus.require(language, train_part) for language in languages}
    splits = {
        split: {
            language: (corpus.require if split == args.eval_split else corpus.read)(language, split)
            for language in languages
        }
        for split in ("dev", "test")
    }
    say_columns(corpus)
    for language in languages:
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
            write_lines(args.out / f"{split}.tsv", ("\t".join(entry) for entry in entries))
    pairs = [entry for listed in train.values() for entry in listed]
    write_split(args.out, "train", pairs)
    write_lines(args.out / "languages.txt", languages)
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
        write_lines(args.out / f"{language}.tsv", lines)


def split(args: argparse.Namespace) -> None:
    """Train, dev and test files with no lemma in two of them."""
    columns, entries = read(args.file, args.language, args.columns)
    print(f"columns {columns}")
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
        write_lines(args.out / name, ("\t".join(entry[1:]) for entry in chosen))
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
    for command in (one, three):
        command.add_argument(
            "--columns",
            choices=ORDERS,
            help="order of the columns of all files (default: what most lines of each look like)",
        )
    args = parser.parse_args()
    try:
        args.run(args)
    except DataError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
