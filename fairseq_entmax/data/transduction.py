"""Tab-separated files of string transduction: a source, a target, and what belongs to the pair.

g2p            word, phones between blanks             SIGMORPHON 2020 to 2022, WikiPron
segmentation   word, ``ab @@solv @@ent``, category     SIGMORPHON 2022; the category may be absent
inflection     lemma, form, features, in either order  SIGMORPHON 2016 to 2023, UniMorph
FILE.yaml      what the file says
"""

import reprlib
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from . import inflection
from .alphabet import KINDS, UNITS, to_symbols, to_text
from .inflection import DataError, parsed, read_lines
from .symbols import feature_symbol, language_symbol

COLUMNS = ("source", "target", "features", "category")
_OPTIONAL = ("features", "category")


class Item(NamedTuple):
    """One line; what a file does not have is empty."""

    language: str
    source: str
    target: str = ""
    features: str = ""
    category: str = ""


class Format(NamedTuple):
    """What the columns of a file are, and how each becomes symbols.

    Attributes:
        columns: names out of COLUMNS, in their order; features and category may be absent.
        source, target: what the column holds, one of ``alphabet.KINDS``.
        unit: what a character is, one of ``alphabet.UNITS``.
        joined: source and target are written with the same symbols.
        any_order: the file tells the order of its columns, as inflection files do.
    """

    columns: Tuple[str, ...] = ("source", "target", "features")
    source: str = "characters"
    target: str = "characters"
    unit: str = "code-points"
    joined: bool = True
    any_order: bool = False

    def source_symbols(self, item: Item) -> List[str]:
        """Symbols of the source, then language and features as tags."""
        features = [feature_symbol(f) for f in inflection.split_features(item.features)]
        tags = [language_symbol(item.language), *features]
        return to_symbols(item.source, self.source, self.unit) + tags

    def target_symbols(self, item: Item) -> List[str]:
        """Symbols of the target; unknown where the file does not say."""
        return to_symbols(item.target, self.target, self.unit) if item.target else ["<unk>"]

    def answer(self, symbols: List[str]) -> str:
        """The target that these symbols are."""
        return to_text(symbols, self.target, self.unit)


FORMATS = {
    "g2p": Format(("source", "target"), target="symbols", unit="decomposed", joined=False),
    "segmentation": Format(("source", "target", "category"), target="morphemes"),
    "inflection": Format(any_order=True),
}


class Read(NamedTuple):
    """What a file holds, and the columns that it has."""

    items: List[Item]
    columns: Tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """What was read, written back."""
        return ("\t".join(getattr(item, name) for name in self.columns) for item in self.items)


def format_of(task: str) -> Format:
    """The format of a named task, or what a YAML file says.

    Raises:
        DataError: no such task or file, or a file that says something else.
    """
    if task in FORMATS:
        return FORMATS[task]
    path = Path(task)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise DataError(f"--task {task}: neither {', '.join(FORMATS)} nor a YAML file")
    import yaml  # of fairseq's own requirements

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from None
    return format_from(content, str(path))


def format_from(content: Any, where: str) -> Format:
    """A format out of names and values, each of them checked.

    Raises:
        DataError: a name or a value that a format does not have.
    """
    fields = Format._fields
    if not isinstance(content, dict) or set(content) - set(fields):
        raise DataError(f"{where}: expected names and values out of {', '.join(fields)}")
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    found = Format(**values)
    columns = found.columns
    named = isinstance(columns, tuple) and all(c in COLUMNS for c in columns)
    if not named or "source" not in columns:
        # lists of YAML may hold each other, and would be written out without end
        got = reprlib.repr(columns)
        raise DataError(f"{where}: columns must be out of {', '.join(COLUMNS)}, got {got}")
    required = [c for c in columns if c not in _OPTIONAL]
    if len(set(columns)) != len(columns) or list(columns[: len(required)]) != required:
        raise DataError(f"{where}: source and target first, each column once, got {columns!r}")
    for name, allowed in (("source", KINDS), ("target", KINDS), ("unit", UNITS)):
        got = getattr(found, name)
        if not isinstance(got, str) or got not in allowed:
            got = reprlib.repr(got)
            raise DataError(f"{where}: {name} must be one of {', '.join(allowed)}, got {got}")
    return found


# ---- one file


def read(
    path: Path, language: str, style: Format, covered: bool = False, order: Optional[str] = None
) -> Read:
    """All lines of a file, each of them checked; empty lines are none.

    Args:
        covered: a file without targets is welcome.
        order: of an inflection file, one of ``inflection.ORDERS``; None: what most lines look like.

    Raises:
        DataError: with file and line: not UTF-8, other columns than most lines have, an empty
            source or target, or text that has no symbols.
    """
    if style.any_order:
        found = inflection.read(path, language, order, covered)
        columns = found.columns.replace("lemma", "source").replace("form", "target")
        return Read([_from_entry(entry) for entry in found.entries], tuple(columns.split(",")))
    rows = {number: line.split("\t") for number, line in read_lines(path).items()}
    names = _columns(path, rows, style, covered)
    items = parsed(rows.items(), lambda row: _item(row, language, names, style), f"{path}, ")
    return Read(list(items), names)


def _from_entry(entry: inflection.Entry) -> Item:
    return Item(entry.language, entry.lemma, entry.form, entry.features)


def _columns(
    path: Path, rows: Dict[int, List[str]], style: Format, covered: bool
) -> Tuple[str, ...]:
    """The columns of a file, told by the number that most of its lines have."""
    if not rows:
        return style.columns
    width = Counter(len(row) for row in rows.values()).most_common(1)[0][0]
    required = sum(c not in _OPTIONAL for c in style.columns)
    if covered and width < required:
        return tuple(c for c in style.columns if c != "target")[:width]
    if not required <= width <= len(style.columns):
        number, row = next((n, r) for n, r in rows.items() if len(r) == width)
        raise DataError(
            f"{path}, line {number}: expected {', '.join(style.columns)} between tabs, got "
            f"{width} fields: {chr(9).join(row)!r}"
        )
    return style.columns[:width]


def _item(row: List[str], language: str, names: Tuple[str, ...], style: Format) -> Item:
    if len(row) != len(names):
        raise ValueError(
            f"expected {', '.join(names)} between tabs, as in most lines, got {len(row)} fields: "
            f"{chr(9).join(row)!r}"
        )
    item = Item(language, **dict(zip(names, row)))
    style.source_symbols(item)
    if "target" in names:
        to_symbols(item.target, style.target, style.unit)
    return item


# ---- duplicates


class Duplicates(NamedTuple):
    """Lines that stand more than once; all are kept."""

    same: int  # copies of a line, beyond the first
    different: int  # sources with more than one answer


def duplicates(items: List[Item]) -> Duplicates:
    """How many lines repeat another, and how many sources have different answers."""
    answers: Dict[Tuple[str, str, str], set] = {}
    for item in items:
        answers.setdefault((item.language, item.source, item.features), set()).add(item.target)
    distinct = sum(len(found) for found in answers.values())
    return Duplicates(len(items) - distinct, sum(len(found) > 1 for found in answers.values()))
