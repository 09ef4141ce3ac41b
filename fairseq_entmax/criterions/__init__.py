"""Criterions; importing this package registers them with fairseq."""

from . import entmax_loss

__all__ = ["entmax_loss"]
