"""Numbers about sparse models."""

from .generation import Candidate, Sentence, read_generation
from .sparsity import Sparsity, measure_sparsity

__all__ = ["Candidate", "Sentence", "Sparsity", "measure_sparsity", "read_generation"]
