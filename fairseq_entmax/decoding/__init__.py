"""Search with probabilities that are exactly zero."""

from .certificate import Certificate
from .distribution import Distribution, distribution_of
from .exact import ExactSearch
from .hypotheses import real_hypotheses
from .mbr import MinimumBayesRisk
from .sparse_beam import SparseSearch, make_sparse

__all__ = [
    "Certificate",
    "Distribution",
    "ExactSearch",
    "MinimumBayesRisk",
    "SparseSearch",
    "distribution_of",
    "make_sparse",
    "real_hypotheses",
]
