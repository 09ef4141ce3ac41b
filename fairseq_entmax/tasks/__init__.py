"""Tasks; importing this package registers them with fairseq."""

from . import inflection, sparse_translation, transduction

__all__ = ["inflection", "sparse_translation", "transduction"]
