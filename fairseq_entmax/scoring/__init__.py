"""Metrics; importing this package registers their scorers with fairseq."""

from .distance import levenshtein
from .inflection import InflectionScorer
from .transduction import TransductionScorer

__all__ = ["InflectionScorer", "TransductionScorer", "levenshtein"]
