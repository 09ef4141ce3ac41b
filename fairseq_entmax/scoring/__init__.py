"""Metrics; importing this package registers their scorers with fairseq."""

from .distance import levenshtein
from .inflection import InflectionScorer
from .transduction import TransductionScorer
from .utility import UTILITIES, utility

__all__ = ["UTILITIES", "InflectionScorer", "TransductionScorer", "levenshtein", "utility"]
