"""Raw text becomes symbols as the text of the data did, as far as its folder tells."""

from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

from fairseq_entmax.data import spelling
from fairseq_entmax.data.subwords import read_pieces
from fairseq_entmax.data.symbols import SPACE, is_tag

_NAMES = ("spm.model", "sentencepiece.bpe.model")  # what is looked for beside the data


def segmenter(
    data: Path, words: Any, sentencepiece: Optional[str] = None
) -> Callable[[str], List[str]]:
    """A function from a line of text to symbols of the dictionary ``words``.

    Text whose words are all known stays as it is: it is cut already. Else, in this order: the
    subwords of a ``spelling.json``; a sentencepiece model, given or lying in the folder of the
    data, above it or in ``text`` beside it; letters, for words whose letters are all known.

    Raises:
        ValueError: there is no such model.
    """
    if sentencepiece is not None and not Path(sentencepiece).is_file():
        raise ValueError(f"there is no sentencepiece model {sentencepiece}")
    cut = _of_spelling(data) or _of_sentencepiece(data, sentencepiece)

    def segment(text: str) -> List[str]:
        symbols = text.split()
        if all(symbol in words for symbol in symbols):
            return symbols
        return cut(text) if cut else [part for symbol in symbols for part in _known(symbol, words)]

    return segment


def _known(symbol: str, words: Any) -> Iterator[str]:
    """The symbol, or its letters where only they are known."""
    letters = symbol not in words and sum(c in words for c in symbol) > len(symbol) / 2
    yield from symbol if letters else [symbol]


def _of_spelling(data: Path) -> Optional[Callable[[str], List[str]]]:
    if not (data / spelling.FILE).is_file():
        return None
    pieces = spelling.Spelling.load(data).source_pieces
    if pieces is None:
        return None
    return lambda text: pieces.pieces([s for word in text.split() for s in _letters(word)])


def _letters(word: str) -> List[str]:
    return [word] if is_tag(word) else list(word)


def _of_sentencepiece(data: Path, given: Optional[str]) -> Optional[Callable[[str], List[str]]]:
    folders = (data, data.parent, data.parent / "text")
    beside = [folder / name for folder in folders for name in _NAMES]
    found = [Path(given)] if given else [path for path in beside if path.is_file()]
    if not found:
        return None
    pieces = read_pieces(found[0])
    return lambda text: [str(piece) for piece in pieces.encode(text, out_type=str)]


def joined(symbols: List[str]) -> str:
    """Symbols as a person reads them: subwords joined, letters written together.

    Example:
        >>> joined(["▁ein", "▁Hau", "s"]), joined(list("Haus") + ["<N>"]), joined(["a", "dog"])
        ('ein Haus', 'Haus <N>', 'a dog')
    """
    if any(symbol.startswith(SPACE) for symbol in symbols):
        return "".join(f" {s} " if is_tag(s) else s for s in symbols).replace(SPACE, " ").strip()
    if any(symbol.endswith("@@") for symbol in symbols):
        return " ".join(symbols).replace("@@ ", "")
    plain = [symbol for symbol in symbols if not is_tag(symbol)]
    if plain and all(len(symbol) == 1 for symbol in plain):
        return " ".join(["".join(plain), *filter(is_tag, symbols)])
    return " ".join(symbols)
