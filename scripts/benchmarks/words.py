"""A dictionary of made-up words, and just enough of a task for a model and a generator."""

from argparse import Namespace

from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask


def made_up_words(n: int) -> Dictionary:
    words = Dictionary()
    for i in range(n - words.nspecial):
        words.add_symbol(f"w{i}")
    return words


class WordsTask(FairseqTask):
    """The same words on both sides."""

    def __init__(self, words: Dictionary) -> None:
        super().__init__(Namespace())
        self.words = words

    source_dictionary = property(lambda self: self.words)
    target_dictionary = property(lambda self: self.words)
