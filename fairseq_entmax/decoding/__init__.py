"""Search with probabilities that are exactly zero."""

from .certificate import Certificate
from .exact import ExactSearch
from .sparse_beam import SparseSearch, make_sparse, real_hypotheses

__all__ = ["Certificate", "ExactSearch", "SparseSearch", "make_sparse", "real_hypotheses"]
