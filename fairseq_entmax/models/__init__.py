"""Models; importing this package registers them with fairseq."""

from . import lstm_entmax, transformer_entmax, two_headed

__all__ = ["lstm_entmax", "transformer_entmax", "two_headed"]
