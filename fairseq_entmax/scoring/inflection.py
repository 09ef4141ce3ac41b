"""Exact match and Levenshtein distance, the metrics of the SIGMORPHON shared tasks."""

from fairseq.dataclass import FairseqDataclass
from fairseq.scoring import BaseScorer, register_scorer

from .distance import levenshtein


@register_scorer("inflection", dataclass=FairseqDataclass)
class InflectionScorer(BaseScorer):
    """``fairseq-generate --scoring inflection``: over all words, characters apart.

    The generator shows a scorer no sources: for the mean over languages, and each language, train
    with ``--task inflection --eval-inflection``, or see examples/inflection.

    Example::

        >>> scorer = InflectionScorer()
        >>> scorer.add_string("H ä u s e r", "H a u s e r")
        >>> scorer.result_string()
        'accuracy: 0.00, levenshtein: 1.0000, words: 1'
    """

    def __init__(self, cfg=None):
        super().__init__(cfg)
        self.correct = 0
        self.distance = 0
        self.words = 0

    def add_string(self, ref, pred):
        """Count a reference and an answer, both with spaces between the symbols."""
        reference, prediction = ref.split(), pred.split()
        self.correct += reference == prediction
        self.distance += levenshtein(reference, prediction)
        self.words += 1

    def score(self) -> float:
        """Exact match in percent, 0 without words."""
        return 100.0 * self.correct / max(self.words, 1)

    def result_string(self) -> str:
        """What fairseq-generate prints in its last line."""
        distance = self.distance / max(self.words, 1)
        return f"accuracy: {self.score():.2f}, levenshtein: {distance:.4f}, words: {self.words}"
