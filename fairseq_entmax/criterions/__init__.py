"""Criterions; importing this package registers them with fairseq."""

from . import entmax_loss, entmax_loss_with_alignment, entmax_risk, masked_entmax_loss

__all__ = ["entmax_loss", "entmax_loss_with_alignment", "entmax_risk", "masked_entmax_loss"]
