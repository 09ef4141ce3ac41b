"""Search with probabilities that are exactly zero."""

from .sparse_beam import SparseSearch, make_sparse, real_hypotheses

__all__ = ["SparseSearch", "make_sparse", "real_hypotheses"]
