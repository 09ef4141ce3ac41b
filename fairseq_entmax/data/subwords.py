"""Subwords of symbols: sentencepiece's unigram model on top of an alphabet, which it never splits.

Every symbol is written as one character, its own or one of a private range, so that a piece is a
run of whole symbols and is read back as them.
"""

import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, List

from .files import read_json, whole, write_json
from .inflection import DataError
from .symbols import RESERVED, is_tag

_PRIVATE = range(0xF0000, 0xFFFFE)
_TRAINING = {
    "model_type": "unigram",
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "split_by_whitespace": False,
    "split_by_unicode_script": False,
    "split_by_number": False,
    "character_coverage": 1.0,
    "hard_vocab_limit": False,
    "num_threads": 1,
    "minloglevel": 2,
}


class Subwords:
    """Pieces of one side of a corpus.

    Args:
        model: what sentencepiece has trained.
        letters: the character that stands for each symbol.
    """

    def __init__(self, model: Any, letters: Dict[str, str]) -> None:
        self.model, self.letters = model, letters
        self.symbol_of = {letter: symbol for symbol, letter in letters.items()}

    @classmethod
    def train(cls, lines: Iterable[List[str]], size: int) -> "Subwords":
        """Pieces of the symbols in lines, tags left out.

        Args:
            size: of the vocabulary of pieces; as many as there are, where there are fewer.

        Raises:
            ValueError: fewer pieces than there are symbols.
        """
        import sentencepiece

        words = [[s for s in line if not is_tag(s)] for line in lines]
        letters = _letters(symbol for word in words for symbol in word)
        if size < len(letters) + 3:
            raise ValueError(f"--subwords {size}: there are {len(letters)} symbols: give more")
        with tempfile.TemporaryDirectory() as folder:
            prefix = f"{folder}/pieces"
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter("".join(letters[s] for s in word) for word in words),
                model_prefix=prefix,
                vocab_size=size,
                **_TRAINING,
            )
            model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
        return cls(model, letters)

    def pieces(self, symbols: Iterable[str]) -> List[str]:
        """Pieces instead of symbols; tags and unknown symbols stay what they are."""
        found: List[str] = []
        run = ""
        for symbol in [*symbols, ""]:
            if symbol in self.letters:
                run += self.letters[symbol]
                continue
            if run:
                found += self.model.encode(run, out_type=str)
                run = ""
            found.append(symbol)
        return found[:-1]

    def symbols(self, pieces: Iterable[str]) -> List[str]:
        """The symbols that pieces are made of."""
        found: List[str] = []
        for piece in pieces:
            if is_tag(piece) or piece in RESERVED:
                found.append(piece)
            else:
                letters = [self.symbol_of.get(letter) for letter in piece]
                found += [piece] if None in letters else letters
        return found

    def save(self, prefix: Path) -> None:
        """Two files, ``PREFIX.spm`` and ``PREFIX.letters.json``."""
        with whole(Path(f"{prefix}.spm")) as part:
            part.write_bytes(self.model.serialized_model_proto())
        write_json(Path(f"{prefix}.letters.json"), self.letters)

    @classmethod
    def load(cls, prefix: Path) -> "Subwords":
        """What :meth:`save` has written.

        Raises:
            DataError: one of the files is not there, or holds something else.
        """
        letters = Path(f"{prefix}.letters.json")
        model = read_pieces(Path(f"{prefix}.spm"))
        try:
            found = read_json(letters)
        except (OSError, ValueError) as error:
            raise DataError(f"{letters}: {error}") from None
        texts = isinstance(found, dict) and all(isinstance(v, str) for v in found.values())
        if not texts or len(set(found.values())) < len(found):
            raise DataError(f"{letters}: expected symbols and a letter of its own for each")
        return cls(model, found)


def read_pieces(path: Path) -> Any:
    """A model of sentencepiece.

    Raises:
        DataError: there is no such file, or it holds something else.
    """
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} is no model of sentencepiece: {error}") from None


def _letters(symbols: Iterable[str]) -> Dict[str, str]:
    """A character for each symbol; sentencepiece has a meaning of its own for ▁ and blanks."""
    unused = map(chr, _PRIVATE)
    letters: Dict[str, str] = {}
    for symbol in symbols:
        if symbol not in letters:
            plain = len(symbol) == 1 and symbol.isprintable() and symbol != "▁"
            private = plain and ord(symbol) in _PRIVATE
            letters[symbol] = symbol if plain and not private else next(unused)
    return letters
