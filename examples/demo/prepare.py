"""Inflection data from packages: German nouns (german-nouns) and Russian verbs (pymorphy3).

Writes {train,valid,test}.{lemma,form} into a folder. A line of the lemma side holds the
characters of a lemma and then its features, one symbol each; the form side holds characters:

    H a u s <de> <N> <neut> <dat> <pl>      ->  H ä u s e r n

The split is by lemma: no lemma of valid or test occurs in train, in any form.
"""

import argparse
import csv
import random
import sys
from itertools import islice
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runner import write_lines

GENDERS = {"m": "masc", "f": "fem", "n": "neut"}
CASES = {"nominativ": "nom", "genitiv": "gen", "dativ": "dat", "akkusativ": "acc"}
NUMBERS = {"singular": "sg", "plural": "pl"}
RUSSIAN_FEATURES = (
    ("impf", "perf"),
    ("pres", "past", "futr", "impr"),
    ("1per", "2per", "3per"),
    ("masc", "femn", "neut"),
    ("sing", "plur"),
)


class Entry(NamedTuple):
    """One cell of a paradigm."""

    lemma: str
    features: Tuple[str, ...]
    form: str


def german_paradigms() -> Iterator[List[Entry]]:
    """Nouns with one gender and all eight cells."""
    import german_nouns

    path = Path(german_nouns.__path__[0]) / "nouns.csv"
    with open(path, encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            lemma = row["lemma"]
            common = "Substantiv" in row["pos"] and "name" not in row["pos"].lower()
            if common and row["genus"] in GENDERS and _is_word(lemma, 4, 16):
                paradigm = list(_german_cells(lemma, row))
                if len(paradigm) == len(CASES) * len(NUMBERS):
                    yield paradigm


def _german_cells(lemma: str, row: Dict[str, str]) -> Iterator[Entry]:
    for case, case_tag in CASES.items():
        for number, number_tag in NUMBERS.items():
            cell = f"{case} {number}"
            form = row[cell] or row[f"{cell} 1"]
            if _is_word(form, 1, 24):
                yield Entry(lemma, ("de", "N", GENDERS[row["genus"]], case_tag, number_tag), form)


def russian_paradigms(rng: random.Random) -> Iterator[List[Entry]]:
    """Finite forms of verbs, by three-letter onsets in random order.

    Listing all five million word forms would take a minute; the caller stops when it has enough.
    """
    import pymorphy3

    morph = pymorphy3.MorphAnalyzer(lang="ru")
    letters = "абвгдежзийклмнопрстуфхцчшщэюя"
    onsets = [a + b + c for a in letters for b in letters for c in letters]
    rng.shuffle(onsets)
    for onset in onsets:
        yield from _russian_verbs(morph, onset)


def _russian_verbs(morph, onset: str) -> Iterator[List[Entry]]:
    for word, tag, normal_form, _, _ in morph.dictionary.iter_known_words(onset):
        if word == normal_form and "INFN" in tag and _is_word(word, 4, 16):
            infinitive = next(p for p in morph.parse(word) if "INFN" in p.tag)
            paradigm = {}
            for cell in infinitive.lexeme:
                if "VERB" in cell.tag and "incl" not in cell.tag:
                    features = ("ru", "V", *_russian_features(cell.tag.grammemes))
                    paradigm.setdefault(features, Entry(word, features, cell.word))
            if len(paradigm) >= 8:
                yield list(paradigm.values())


def _russian_features(grammemes) -> List[str]:
    return [name for names in RUSSIAN_FEATURES for name in names if name in grammemes]


def _is_word(text: str, shortest: int, longest: int) -> bool:
    return shortest <= len(text) <= longest and text.isalpha()


def split_by_lemma(
    paradigms: Iterable[List[Entry]], sizes: Dict[str, int], rng: random.Random, cells: int
) -> Dict[str, List[Entry]]:
    """Whole lemmas to each split, ``cells`` random cells of each, until the size is reached."""
    by_lemma: Dict[str, List[Entry]] = {}
    for paradigm in paradigms:
        by_lemma.setdefault(paradigm[0].lemma, []).extend(paradigm)
    lemmas = sorted(by_lemma)
    rng.shuffle(lemmas)
    splits: Dict[str, List[Entry]] = {}
    for split, size in sizes.items():
        chosen: List[Entry] = []
        while len(chosen) < size and lemmas:
            paradigm = by_lemma[lemmas.pop()]
            chosen.extend(rng.sample(paradigm, min(cells, len(paradigm))))
        if len(chosen) < size:
            raise SystemExit(f"only {len(chosen)} of {size} pairs for {split}: ask for fewer")
        splits[split] = chosen[:size]
    return splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--train", type=int, default=12000, help="training pairs per language")
    parser.add_argument("--valid", type=int, default=500, help="validation pairs per language")
    parser.add_argument("--test", type=int, default=500, help="test pairs per language")
    parser.add_argument("--cells", type=int, default=3, help="cells taken of each lemma")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    sizes = {"test": args.test, "valid": args.valid, "train": args.train}
    n_lemmas = int(1.1 * sum(sizes.values()) / args.cells) + 50  # some share a lemma
    corpora = [
        split_by_lemma(paradigms, sizes, rng, args.cells)
        for paradigms in (german_paradigms(), islice(russian_paradigms(rng), n_lemmas))
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    for split in sizes:
        entries = [entry for corpus in corpora for entry in corpus[split]]
        tags = [" ".join(f"<{tag}>" for tag in entry.features) for entry in entries]
        sources = [" ".join(entry.lemma) + " " + tag for entry, tag in zip(entries, tags)]
        write_lines(args.out / f"{split}.lemma", sources)
        write_lines(args.out / f"{split}.form", [" ".join(entry.form) for entry in entries])
        lemmas = len({entry.lemma for entry in entries})
        print(f"{split}: {len(entries)} pairs of {lemmas} lemmas, German nouns and Russian verbs")


if __name__ == "__main__":
    main()
