"""The files of a transduction corpus: which language and which part each of them is.

ady_train.tsv, ces.word.dev.tsv, ces.word.test.gold.tsv, german-train-medium, deu.trn, ady_test.txt
"""

import hashlib
import re
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple

from .inflection import DataError
from .transduction import Format, Item, Read, read

_PART = {"trn": "train", "valid": "dev", "tst": "test"}
_NAME = re.compile(
    r"(?P<language>.+?)(\.word)?[._-](?P<part>train|trn|dev|valid|test|tst)(-(?P<setting>\w+))?"
    r"(?P<ending>(\.gold)?(\.tsv)?|\.txt)"
)
_BEST_FIRST = (".gold.tsv", ".gold", ".tsv", "", ".txt")  # the last is without targets
HELD_OUT = 1000  # sources at most, of a language without dev

Place = Tuple[str, str]  # language and part


class Collection:
    """Finds, reads and counts the files of each language.

    Args:
        paths: folders, searched with what is below them, and files. A file whose name tells no
            part is training data of the language that it is named after.
        style: the format of all of them.
        setting: of names like ``german-train-medium``; others are left alone.
        order: see :func:`read`.

    Raises:
        DataError: no such path, or two files that would be the same part of a language.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        style: Format,
        setting: Optional[str] = None,
        order: Optional[str] = None,
    ) -> None:
        self.style, self.setting, self.order = style, setting, order
        self.notes: List[str] = []  # what a run should say about the data
        ranked: Dict[Place, Dict[int, Path]] = {}
        for path in paths:
            for file, named in _files(path):
                self._add(file, named, ranked)
        self.paths = {place: files[min(files)] for place, files in ranked.items()}

    def _add(self, file: Path, named: bool, ranked: Dict[Place, Dict[int, Path]]) -> None:
        match = _NAME.fullmatch(file.name)
        if match is None:
            if named:
                ranked.setdefault((file.stem, "train"), {})[_BEST_FIRST.index("")] = file
            return
        part = _PART.get(match["part"], match["part"])
        if part == "train" and match["setting"] and match["setting"] != self.setting:
            return
        files = ranked.setdefault((match["language"], part), {})
        other = files.setdefault(_BEST_FIRST.index(match["ending"]), file)
        if other != file:
            raise DataError(f"{other} and {file} are both {part} of {match['language']}")

    def languages(self, part: str) -> List[str]:
        """The languages that have a file of this part, sorted."""
        return sorted(language for language, other in self.paths if other == part)

    def choose(self, names: str) -> List[str]:
        """The languages to train on: names between blanks or commas, or ``all``.

        Raises:
            DataError: none, or one that has no training file; it names those that have.
        """
        trained = self.languages("train")
        chosen = list(dict.fromkeys(names.replace(",", " ").split()))
        if chosen == ["all"]:
            untrained = sorted({language for language, _ in self.paths} - set(trained))
            if untrained:
                self.notes.append(f"without training file, left out: {' '.join(untrained)}")
            chosen = trained
        missing = [language for language in chosen if language not in trained]
        if missing or not chosen:
            raise DataError(
                f"no training file of {' '.join(missing) or 'any language'} (there is one of: "
                f"{' '.join(trained) or 'none'})"
            )
        return chosen

    def read(self, language: str, part: str) -> Read:
        """The lines of a part, none where there is no file.

        Raises:
            DataError: what :func:`read` raises, or a file without lines.
        """
        path = self.paths.get((language, part))
        if path is None:
            return Read([], self.style.columns)
        found = read(path, language, self.style, covered=part == "test", order=self.order)
        if not found.items:
            raise DataError(f"{path}: no lines")
        return found

    def train_and_dev(self, language: str) -> Tuple[List[Item], List[Item]]:
        """Training and dev lines; without a dev file every tenth source is held out for it."""
        train, dev = (self.read(language, part).items for part in ("train", "dev"))
        if dev:
            return train, dev
        sources = list(dict.fromkeys(item.source for item in train))
        held_out = set(sources[5::10][:HELD_OUT])
        train, dev = _divided(train, held_out)
        if not train or not dev:
            raise DataError(f"{language}: no dev file, and too few lines to hold some out")
        self.notes.append(
            f"{language}: no dev file, {len(dev)} training lines held out in its place"
        )
        return train, dev

    def digest(self) -> str:
        """One name for the content of all files."""
        content = hashlib.sha256(repr((self.style, self.order)).encode())
        for (language, part), path in sorted(self.paths.items()):
            content.update(f"{language} {part}\n".encode())
            content.update(path.read_bytes())
        return content.hexdigest()[:16]


def _files(path: Path) -> Iterable[Tuple[Path, bool]]:
    """Files, and whether they were named themselves."""
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
        return [(file, False) for file in found]
    if not path.is_file():
        raise DataError(f"--data {path}: no such file or folder")
    return [(path, True)]


def _divided(items: List[Item], sources: Iterable[str]) -> Tuple[List[Item], List[Item]]:
    """Items of other sources, and items of these."""
    chosen = set(sources)
    return (
        [item for item in items if item.source not in chosen],
        [item for item in items if item.source in chosen],
    )
