"""Numbers about sparse models."""

from .generation import Candidate, Sentence, read_generation

__all__ = ["Candidate", "Sentence", "read_generation"]
