"""Tasks; importing this package registers them with fairseq."""

from . import sparse_translation

__all__ = ["sparse_translation"]
