"""Data of the SIGMORPHON shared tasks and UniMorph: a lemma, a form and features on each line.

The columns come in two orders, and covered files have no form:

    lemma,form,features    SIGMORPHON 2017 to 2022, UniMorph
    lemma,features,form    SIGMORPHON 2016 (pos=N,case=DAT) and 2023
    lemma,features         what a shared task hands out to be answered
"""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, TypeVar

from .symbols import feature_symbol, language_symbol, word_to_symbols

FOLDERS = ("", "task1/all", "task1/surprise", "all", "surprise")  # of sigmorphon/conll2018
FORM_FIRST, FEATURES_FIRST, COVERED = "lemma,form,features", "lemma,features,form", "lemma,features"
ORDERS = (FORM_FIRST, FEATURES_FIRST)
Line, Parsed = TypeVar("Line"), TypeVar("Parsed")
ENDINGS = {"train": (".trn", ".train"), "dev": (".dev",), "test": (".tst", ".test")}
_TAG = re.compile(r"[A-Z0-9][A-Z0-9.+,/(){}:|_-]*")
_PAIRS = re.compile(r"\w+=[^\s,=]+(,\w+=[^\s,=]+)*")  # of 2016: pos=N,case=DAT


class DataError(ValueError):
    """Data that cannot be read as it is; the message says where and why."""


class Entry(NamedTuple):
    """One line of a data file; the form of a covered one is empty."""

    language: str
    lemma: str
    form: str
    features: str

    @property
    def source(self) -> str:
        """Characters of the lemma, language, features, as symbols between blanks."""
        features = [feature_symbol(feature) for feature in split_features(self.features)]
        tags = [language_symbol(self.language), *features]
        return " ".join(word_to_symbols(self.lemma) + tags)

    @property
    def target(self) -> str:
        """Characters of the form, as symbols between blanks; unknown where it is covered."""
        return " ".join(word_to_symbols(self.form)) if self.form else "<unk>"


class DataFile(NamedTuple):
    """What a file holds, and the order of columns that it was read by."""

    columns: str
    entries: List[Entry]


# ---- one file


def read(
    path: Path, language: str, columns: Optional[str] = None, covered: bool = False
) -> DataFile:
    """All entries of a file, each of them checked; empty lines are not entries.

    Args:
        columns: one of ORDERS; None takes what most lines look like.
        covered: a file without forms is welcome.

    Raises:
        DataError: a line that is no entry, not UTF-8, or clearly of another order than most.
    """
    lines = read_lines(path)
    rows = [line.split("\t") for line in lines.values()]
    taken, certain = (columns, False) if columns else recognise(rows)
    if columns and covered and rows and all(len(row) == 2 for row in rows):
        taken = COVERED
    if taken == COVERED and not covered:
        taken = FORM_FIRST  # the first line is refused for what it lacks
    entries = parsed(
        lines.items(), lambda line: _entry(line, language, taken, certain), f"{path}, "
    )
    return DataFile(taken, list(entries))


def read_lines(path: Path) -> Dict[int, str]:
    """The lines that are not empty, by number.

    Raises:
        DataError: bytes that are not UTF-8.
    """
    with open(path, "rb") as file:
        return dict(decoded(file, f"{path}, "))


def decoded(file: Iterable[bytes], where: str = "") -> Iterator[Tuple[int, str]]:
    """Number and text of each line that is not empty; ``where`` begins the message of an error.

    Raises:
        DataError: bytes that are not UTF-8.
    """
    numbered = parsed(enumerate(file, 1), lambda raw: raw.decode("utf-8"), where)
    for number, line in enumerate(numbered, 1):
        text = line.lstrip("\ufeff").rstrip("\r\n")
        if text.strip():
            yield number, text


def parsed(
    lines: Iterable[Tuple[int, Line]], parse: Callable[[Line], Parsed], where: str = ""
) -> Iterator[Parsed]:
    """What each numbered line says; ``where`` begins the message of an error.

    Raises:
        DataError: ``parse`` has raised a ValueError; with the number of the line.
    """
    for number, line in lines:
        try:
            found = parse(line)
        except ValueError as error:
            raise DataError(f"{where}line {number}: {error}") from None
        yield found


def recognise(rows: Iterable[List[str]]) -> Tuple[str, bool]:
    """The order of columns that most lines speak for, and whether most do.

    A line speaks for an order if one of its last two columns looks like features, and the other
    does not. Where neither order has most lines it is lemma, form, features.
    """
    votes = Counter(map(_order_of, rows))
    order, count = votes.most_common(1)[0] if votes else (None, 0)
    if order is None or 2 * count <= sum(votes.values()):
        return FORM_FIRST, False
    return order, True


def _order_of(row: List[str]) -> Optional[str]:
    if len(row) == 2:
        return COVERED
    if len(row) != 3 or not row[1] or not row[2]:
        return None
    second, third = map(_is_features, row[1:])
    if second == third:
        return None
    return FEATURES_FIRST if second else FORM_FIRST


def _is_features(text: str) -> bool:
    """UniMorph's tags are written in capitals, with semicolons between them."""
    return ";" in text or bool(_TAG.fullmatch(text) or _PAIRS.fullmatch(text))


def split_features(text: str) -> List[str]:
    """Features between semicolons; of 2016, between commas."""
    separator = "," if ";" not in text and _PAIRS.fullmatch(text) else ";"
    return [feature.strip() for feature in text.split(separator) if feature.strip()]


def _entry(line: str, language: str, columns: str, certain: bool) -> Entry:
    row = line.split("\t")
    expected = columns.split(",")
    if len(row) != len(expected):
        names = f"{', '.join(expected[:-1])} and {expected[-1]}"
        raise ValueError(f"expected {names} between tabs, got {len(row)} fields: {line!r}")
    order = _order_of(row)
    if certain and order not in (None, columns):
        raise ValueError(
            f"this looks like {order}, most lines like {columns}: {line!r} (--columns ORDER reads "
            "all lines alike)"
        )
    fields = dict(zip(expected, row))
    entry = Entry(language, fields["lemma"], fields.get("form", ""), fields["features"])
    if "form" in fields:
        word_to_symbols(entry.form)  # raises ValueError for what has no symbol, as source does
    assert entry.source
    return entry


# ---- a folder


class Corpus:
    """The files of a data folder, for each language and each of its parts.

    A part is ``train-SETTING``, ``dev`` or ``test``; its file is LANGUAGE-PART, or as in later
    shared tasks LANGUAGE.trn, LANGUAGE.dev or LANGUAGE.tst.

    Args:
        folder: a clone of sigmorphon/conll2018, or any folder with such files.
        columns: order of the columns of all files; None takes what most lines of each look like.

    Raises:
        DataError: no such folder.
    """

    def __init__(self, folder: Path, columns: Optional[str] = None) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder (a clone of sigmorphon/conll2018?)")
        self.folder, self.columns = folder, columns
        self.roots = [folder / name for name in FOLDERS if (folder / name).is_dir()]
        self.taken: Dict[str, List[str]] = {}  # names of the files read, by order of columns

    def path(self, language: str, part: str) -> Optional[Path]:
        """The file of a part, None if there is none."""
        names = [f"{language}{ending}" for ending in _endings(part)]
        paths = (root / name for name in names for root in self.roots)
        return next((path for path in paths if path.is_file()), None)

    def languages(self, part: str) -> List[str]:
        """The languages that have a file of this part, sorted."""
        names = {
            path.name[: -len(ending)]
            for ending in _endings(part)
            for root in self.roots
            for path in root.glob(f"*{ending}")
        }
        return sorted(names)

    def read(self, language: str, part: str) -> List[Entry]:
        """The entries of a part, none if there is no file; those of a test may be covered."""
        path = self.path(language, part)
        if path is None:
            return []
        columns, entries = read(path, language, self.columns, covered=part == "test")
        self.taken.setdefault(columns, []).append(path.name)
        return entries

    def require(self, language: str, part: str) -> List[Entry]:
        """The entries of a part.

        Raises:
            DataError: there are none; it names what there is.
        """
        entries = self.read(language, part)
        if not entries:
            patterns = (f"{language}-*", f"{language}.*")
            have = {path.name for root in self.roots for p in patterns for path in root.glob(p)}
            looked_for = ", ".join(f"{language}{ending}" for ending in _endings(part))
            raise DataError(
                f"{self.folder}: no pairs in {language}-{part} "
                f"(files of this language: {', '.join(sorted(have)) or 'none'}; "
                f"languages with such a file: {' '.join(self.languages(part)) or 'none'}; "
                f"looked for {looked_for})"
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
            endings = (*_endings(train_part), *_endings(eval_part))
            raise DataError(
                f"{self.folder}: no language has both LANGUAGE-{train_part} and "
                f"LANGUAGE-{eval_part} (looked for LANGUAGE{', LANGUAGE'.join(endings)})"
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


def _endings(part: str) -> Tuple[str, ...]:
    """How the names of a part's files end, behind the language."""
    return (f"-{part}", *ENDINGS.get(part.split("-")[0], ()))


def _split(names: str) -> List[str]:
    """Names between blanks or commas, each once."""
    return list(dict.fromkeys(names.replace(",", " ").split()))
