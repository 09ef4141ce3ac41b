"""Sparse sequence-to-sequence models for fairseq: ``--user-dir fairseq_entmax``."""

__version__ = "0.1.0"

from fairseq_entmax import compat

compat.apply()

# fairseq finds models/ and tasks/ of a user-dir by itself, but never criterions/, and nothing at
# all if this package was imported before
from fairseq_entmax import criterions, models  # noqa: E402

__all__ = ["compat", "criterions", "models"]
