"""Tasks; importing this package registers them with fairseq."""

from . import inflection

__all__ = ["inflection"]
