"""Data of the SIGMORPHON shared tasks and UniMorph: a lemma, a form and features on each line."""

import hashlib
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

from .symbols import feature_symbol, language_symbol, word_to_symbols

FOLDERS = ("", "task1/all", "task1/surprise", "all", "surprise")  # of sigmorphon/conll2018


class DataError(ValueError):
    """Data that cannot be read as it is; the message says where and why."""


class Entry(NamedTuple):
    """One line of a data file."""

    language: str
    lemma: str
    form: str
    features: str

    @property
    def source(self) -> str:
        """Characters of the lemma, language, features, as symbols between blanks."""
        features = [feature_symbol(f.strip()) for f in self.features.split(";") if f.strip()]
        tags = [language_symbol(self.language), *features]
        return " ".join(word_to_symbols(self.lemma) + tags)

    @property
    def target(self) -> str:
        """Characters of the form, as symbols between blanks."""
        return " ".join(word_to_symbols(self.form))


def read(path: Path, language: str) -> List[Entry]:
    """All entries of a file, each of them checked; empty lines are not entries.

    Raises:
        DataError: a line that is no entry, or not UTF-8.
    """
    entries = []
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8").lstrip("\ufeff").rstrip("\r\n")
                if line.strip():
                    entries.append(_checked(line, language))
            except ValueError as error:  # also what is not UTF-8
                raise DataError(f"{path}, line {number}: {error}") from None
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
    """The files of a data folder: LANGUAGE-train-SETTING, LANGUAGE-dev, LANGUAGE-test.

    Args:
        folder: a clone of sigmorphon/conll2018, or any folder with such files.

    Raises:
        DataError: no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder (a clone of sigmorphon/conll2018?)")
        self.folder = folder
        self.roots = [folder / name for name in FOLDERS if (folder / name).is_dir()]

    def path(self, language: str, part: str) -> Optional[Path]:
        """The file of a part such as train-medium or dev, None if there is none."""
        paths = (root / f"{language}-{part}" for root in self.roots)
        return next((path for path in paths if path.is_file()), None)

    def languages(self, part: str) -> List[str]:
        """The languages that have a file of this part, sorted."""
        ending = f"-{part}"
        names = {path.name for root in self.roots for path in root.glob(f"*{ending}")}
        return sorted(name[: -len(ending)] for name in names)

    def read(self, language: str, part: str) -> List[Entry]:
        """The entries of a part, none if there is no file."""
        path = self.path(language, part)
        return [] if path is None else read(path, language)

    def require(self, language: str, part: str) -> List[Entry]:
        """The entries of a part.

        Raises:
            DataError: there are none; it names what there is.
        """
        entries = self.read(language, part)
        if not entries:
            have = sorted(path.name for root in self.roots for path in root.glob(f"{language}-*"))
            raise DataError(
                f"{self.folder}: no pairs in {language}-{part} "
                f"(files of this language: {', '.join(have) or 'none'}; "
                f"languages with such a file: {' '.join(self.languages(part)) or 'none'})"
            )
        return entries

    def choose(self, names: str, train_part: str, eval_part: str) -> Tuple[List[str], List[str]]:
        """The languages that a run is about.

        Args:
            names: names between blanks or commas, or ``all``: those that can be trained and
                evaluated.

        Returns:
            The chosen ones and, of ``all``, those left out, which can only be evaluated.

        Raises:
            DataError: no language is left.
        """
        if names.split() != ["all"]:
            chosen = _split(names)
            if not chosen:
                raise DataError("no languages: name some, or say all")
            return chosen, []
        evaluated, trained = self.languages(eval_part), set(self.languages(train_part))
        chosen = [language for language in evaluated if language in trained]
        if not chosen:
            raise DataError(
                f"{self.folder}: no language has both LANGUAGE-{train_part} and "
                f"LANGUAGE-{eval_part}"
            )
        return chosen, [language for language in evaluated if language not in trained]

    def digest(self, names: str, train_part: str) -> str:
        """One name for the content of every file that a run of these languages can read."""
        content = hashlib.sha256()
        for part in (train_part, "dev", "test"):
            named = self.languages(part) if names.split() == ["all"] else _split(names)
            for language in sorted(named):
                path = self.path(language, part)
                if path is not None:
                    content.update(f"{path.name}\n".encode())
                    content.update(path.read_bytes())
        return content.hexdigest()[:16]


def _split(names: str) -> List[str]:
    """Names between blanks or commas, each once."""
    return list(dict.fromkeys(names.replace(",", " ").split()))
