"""Tasks; importing this package registers them with fairseq."""

from . import inflection, sparse_translation

__all__ = ["inflection", "sparse_translation"]
