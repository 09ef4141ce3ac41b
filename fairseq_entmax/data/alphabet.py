"""How one column of a transduction file becomes symbols, and symbols become the column again.

    characters    Haus            ->  H a u s
    symbols       t͡s aː x         ->  t͡s aː x          phones, split already
    morphemes     ab @@solv @@e   ->  a b @@ s o l v @@ e

A character is a code point, a grapheme cluster (a letter with its marks, a Hangul syllable), or,
decomposed, what Unicode's NFD makes of it (a Hangul syllable becomes its two or three letters).
"""

import unicodedata
from typing import Iterable, List

from .symbols import RESERVED, SPACE, is_tag, symbols_to_word, word_to_symbols

BORDER = "@@"  # between two morphemes
KINDS = ("characters", "symbols", "morphemes")
UNITS = ("code-points", "clusters", "decomposed")
_BETWEEN = f" {BORDER}"


def to_symbols(text: str, kind: str = "characters", unit: str = "code-points") -> List[str]:
    """The symbols of a column.

    Args:
        kind: one of KINDS, what the column holds.
        unit: one of UNITS, what a character is; ``symbols`` have none.

    Raises:
        ValueError: an empty column, or one that would not be read back as it is.

    Example:
        >>> to_symbols("ab @@solv", "morphemes")
        ['a', 'b', '@@', 's', 'o', 'l', 'v']
    """
    if kind == "symbols":
        return _checked_symbols(text)
    if not text:
        raise ValueError("a word without characters")
    if kind == "characters":
        symbols = _characters(text, unit)
    else:
        first, *others = text.split(_BETWEEN)
        symbols = _characters(first, unit)
        for morpheme in others:
            symbols += [BORDER, *_characters(morpheme, unit)]
    if unit == "decomposed" and to_text(symbols, kind, unit) != text:
        raise ValueError(f"decomposed, {text!r} would be written back as its NFC, another string")
    return symbols


def to_text(symbols: Iterable[str], kind: str = "characters", unit: str = "code-points") -> str:
    """The column that these symbols are; the inverse of :func:`to_symbols`."""
    if kind == "symbols":
        return " ".join(symbols)
    if kind == "morphemes":
        text = _BETWEEN.join(symbols_to_word(part) for part in split_at(symbols, BORDER))
    else:
        text = symbols_to_word(symbols)
    return unicodedata.normalize("NFC", text) if unit == "decomposed" else text


def split_at(symbols: Iterable[str], *borders: str) -> List[List[str]]:
    """The parts between borders, empty ones included."""
    parts: List[List[str]] = [[]]
    for symbol in symbols:
        if symbol in borders:
            parts.append([])
        else:
            parts[-1].append(symbol)
    return parts


def morphemes(symbols: Iterable[str]) -> List[str]:
    """The morphemes as the shared task of 2022 counts them: blanks are borders too, so that two
    blanks have an empty morpheme between them.
    """
    return ["".join(part) for part in split_at(symbols, BORDER, SPACE)]


def single_characters(symbols: Iterable[str]) -> List[str]:
    """The code points of symbols, borders and white space being one each."""
    return [
        character
        for symbol in symbols
        for character in ([symbol] if symbol == BORDER or symbol[:1] == SPACE else symbol)
    ]


def _characters(text: str, unit: str) -> List[str]:
    if not text:  # of an empty morpheme
        return []
    if unit == "decomposed":
        return word_to_symbols(unicodedata.normalize("NFD", text))
    if unit == "clusters":
        return [symbol for cluster in _clusters(text) for symbol in cluster]
    return word_to_symbols(text)


def _clusters(text: str) -> Iterable[List[str]]:
    import regex  # of fairseq's own requirements

    for cluster in regex.findall(r"\X", text):
        symbols = word_to_symbols(cluster)
        # a blank with marks: a symbol with white space in it would be two
        whole = len(symbols) == len(cluster) and not any(s[0] == SPACE for s in symbols)
        yield ["".join(symbols)] if whole else symbols


def _checked_symbols(text: str) -> List[str]:
    symbols = text.split(" ")
    for symbol in symbols:
        if not symbol:
            raise ValueError(f"an empty symbol (two blanks, or one at an end) in {text!r}")
        if symbol in RESERVED or is_tag(symbol):
            raise ValueError(f"the symbol {symbol}, which has another meaning, in {text!r}")
        if symbol.split() != [symbol]:
            raise ValueError(f"white space inside the symbol {symbol!r}")
    return symbols
