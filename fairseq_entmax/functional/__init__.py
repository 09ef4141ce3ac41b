"""The public mathematics of sparse sequence-to-sequence models."""

from .loss import entmax_loss
from .mapping import entmax, entmax15, sparsemax

__all__ = ["entmax", "entmax15", "entmax_loss", "sparsemax"]
