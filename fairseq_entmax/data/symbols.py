"""How a word and its features are written as symbols of a fairseq dictionary.

A source line holds the characters of a lemma, then its language and its features:

    H a u s <lang:german> <N> <DAT> <PL>

A character is a symbol of its own; a space is ``▁`` (U+2581), any other white space, which fairseq
would take for the border of two symbols, ``▁`` and its number: ``▁A0``.
"""

from typing import Iterable, List

SPACE = "▁"
_LANGUAGE = "<lang:"
RESERVED = ("<s>", "<pad>", "</s>", "<unk>")


def word_to_symbols(word: str) -> List[str]:
    """The symbols of a word's characters.

    Raises:
        ValueError: the word is empty or holds the character that stands for a space.
    """
    if not word:
        raise ValueError("a word without characters")
    if SPACE in word:
        raise ValueError(f"the character {SPACE} (U+2581), which stands for a space, in {word!r}")
    return [_character(c) for c in word]


def _character(character: str) -> str:
    if character == " ":
        return SPACE
    return f"{SPACE}{ord(character):X}" if character.isspace() else character


def symbols_to_word(symbols: Iterable[str]) -> str:
    """The word whose characters these are."""
    return "".join(
        chr(int(s[1:], 16)) if s.startswith(SPACE) and len(s) > 1 else s.replace(SPACE, " ")
        for s in symbols
    )


def feature_symbol(feature: str) -> str:
    """The symbol of a feature such as PL.

    Raises:
        ValueError: the symbol would be one of fairseq's own, or that of a language.
    """
    symbol = f"<{SPACE.join(feature.split())}>"
    if symbol in RESERVED or symbol.startswith(_LANGUAGE):
        raise ValueError(f"the feature {feature!r}, whose symbol {symbol} has another meaning")
    return symbol


def language_symbol(language: str) -> str:
    """The symbol of a language such as german."""
    return f"{_LANGUAGE}{language}>"


def is_language(symbol: str) -> bool:
    """Whether a symbol is that of a language."""
    return symbol.startswith(_LANGUAGE) and symbol.endswith(">")


def is_tag(symbol: str) -> bool:
    """A language or feature, not a character."""
    return len(symbol) > 2 and symbol[0] == "<" and symbol[-1] == ">" and symbol not in RESERVED


def language_of(symbol: str) -> str:
    """The name inside a language's symbol."""
    return symbol[len(_LANGUAGE) : -1]
