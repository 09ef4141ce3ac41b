"""From lines of a data file to lines of fairseq's text and back, as one folder remembers it."""

from pathlib import Path
from typing import Iterable, List, Optional

from .files import read_json, write_json
from .inflection import DataError
from .subwords import Subwords
from .transduction import Format, Item, format_from

FILE = "spelling.json"
SIDES = ("source", "target")
_FILES = (FILE, "*.spm", "*.letters.json")


class Spelling:
    """A format, and the subwords of both sides if there are any."""

    def __init__(
        self,
        style: Format,
        source_pieces: Optional[Subwords] = None,
        target_pieces: Optional[Subwords] = None,
    ) -> None:
        self.style = style
        self.source_pieces, self.target_pieces = source_pieces, target_pieces

    @classmethod
    def learn(cls, style: Format, items: Iterable[Item], subwords: int) -> "Spelling":
        """With ``subwords`` pieces, those of both sides together where they share their symbols."""
        if not subwords:
            return cls(style)
        listed = list(items)
        sources = [style.source_symbols(item) for item in listed]
        targets = [style.target_symbols(item) for item in listed]
        if style.joined:
            pieces = Subwords.train(sources + targets, subwords)
            return cls(style, pieces, pieces)
        return cls(style, Subwords.train(sources, subwords), Subwords.train(targets, subwords))

    def source_tokens(self, item: Item) -> List[str]:
        """What the model reads.

        Raises:
            ValueError: a source or features that have no symbols.
        """
        return _pieces(self.source_pieces, self.style.source_symbols(item))

    def target_tokens(self, item: Item) -> List[str]:
        """What the model is to write."""
        return _pieces(self.target_pieces, self.style.target_symbols(item))

    def target_symbols(self, tokens: Iterable[str]) -> List[str]:
        """The symbols that the model has written."""
        return self.target_pieces.symbols(tokens) if self.target_pieces else list(tokens)

    def answer(self, tokens: Iterable[str]) -> str:
        """The target column that the model has written."""
        return self.style.answer(self.target_symbols(tokens))

    def save(self, folder: Path) -> None:
        """Everything into a folder, from which :meth:`load` has it back."""
        pieces = {"source": self.source_pieces, "target": self.target_pieces}
        for side, some in pieces.items():
            if some is not None:
                some.save(folder / side)
        write_json(folder / FILE, self.style._asdict())

    @classmethod
    def load(cls, folder: Path) -> "Spelling":
        """What :meth:`save` has written.

        Raises:
            DataError: there is no such file, or it holds something else.
        """
        path = folder / FILE
        try:
            content = read_json(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: {error}") from None
        found = [
            Subwords.load(folder / side) if (folder / f"{side}.spm").is_file() else None
            for side in SIDES
        ]
        return cls(format_from(content, str(path)), *found)


def files_in(folder: Path) -> List[Path]:
    """The files of a spelling that :meth:`Spelling.save` has written there."""
    return [path for pattern in _FILES for path in sorted(folder.glob(pattern))]


def _pieces(subwords: Optional[Subwords], symbols: List[str]) -> List[str]:
    return subwords.pieces(symbols) if subwords else symbols
