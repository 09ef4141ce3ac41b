"""Metrics; importing this package registers their scorers with fairseq."""

from .inflection import InflectionScorer, levenshtein

__all__ = ["InflectionScorer", "levenshtein"]
