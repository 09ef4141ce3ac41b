"""Utilities of minimum Bayes risk decoding and training: what an answer is worth."""

from functools import lru_cache
from typing import Any, Dict, Tuple

from .distance import levenshtein

Symbols = Tuple[str, ...]

_KEPT = 1 << 16  # pairs of strings whose utility is remembered


class Distance:
    """u = -Levenshtein distance, in symbols.

    Example:
        >>> Distance()(tuple("kitten"), tuple("sitting"))
        -3.0
    """

    def __call__(self, answer: Symbols, right: Symbols) -> float:
        return -float(levenshtein(answer, right))

    def spread(self, one: Symbols, other: Symbols) -> float:
        """Their own distance, by the triangle inequality."""
        return float(levenshtein(one, other))


class Accuracy:
    """u = 1 for the right string, else 0: its expectation is highest for the most probable one."""

    def __call__(self, answer: Symbols, right: Symbols) -> float:
        return float(answer == right)

    def spread(self, one: Symbols, other: Symbols) -> float:
        return float(one != other)


class SentenceMetric:
    """A metric of sacrebleu for one sentence, from 0 to 1, of symbols joined by blanks.

    Args:
        metric: ``sacrebleu.metrics.CHRF`` or ``BLEU``, built.
    """

    def __init__(self, metric: Any) -> None:
        def score(answer: str, right: str) -> float:
            return float(metric.sentence_score(answer, [right]).score) / 100

        self.score = lru_cache(maxsize=_KEPT)(score)

    def __call__(self, answer: Symbols, right: Symbols) -> float:
        return self.score(" ".join(answer), " ".join(right))

    def spread(self, one: Symbols, other: Symbols) -> float:
        return float(one != other)


def _chrf() -> SentenceMetric:
    from sacrebleu.metrics import CHRF

    return SentenceMetric(CHRF())


def _bleu() -> SentenceMetric:
    from sacrebleu.metrics import BLEU

    return SentenceMetric(BLEU(effective_order=True))


_MAKERS: Dict[str, Any] = {
    "levenshtein": Distance,
    "chrf": _chrf,
    "bleu": _bleu,
    "accuracy": Accuracy,
}
UTILITIES = tuple(_MAKERS)


def utility(name: str) -> Any:
    """The utility of this name: levenshtein, chrf, bleu or accuracy.

    Raises:
        ValueError: there is none.
    """
    if name not in _MAKERS:
        raise ValueError(f"--utility must be one of {', '.join(UTILITIES)}, got {name}")
    return _MAKERS[name]()
