"""The public mathematics of sparse sequence-to-sequence models."""

from .loss import entmax_loss
from .mapping import entmax, entmax15, log_entmax, sparsemax
from .next_tokens import next_token_layer
from .output_layer import linear_entmax_loss
from .shards import VocabularyShards
from .vocabulary_parallel import vocabulary_parallel_entmax_loss

__all__ = [
    "VocabularyShards",
    "entmax",
    "entmax15",
    "entmax_loss",
    "linear_entmax_loss",
    "log_entmax",
    "next_token_layer",
    "sparsemax",
    "vocabulary_parallel_entmax_loss",
]
