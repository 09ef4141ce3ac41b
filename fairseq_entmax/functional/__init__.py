"""The public mathematics of sparse sequence-to-sequence models."""

from .linear import linear_entmax_loss
from .loss import entmax_loss
from .mapping import entmax, entmax15, sparsemax

__all__ = ["entmax", "entmax15", "entmax_loss", "linear_entmax_loss", "sparsemax"]
