"""Sparse sequence-to-sequence models for fairseq: ``--user-dir fairseq_entmax``."""

from importlib.util import find_spec

__version__ = "0.1.0"

# `fairseq_entmax.functional` is plain torch and works without fairseq
if find_spec("fairseq") is not None:
    from fairseq_entmax import compat

    compat.apply()

    # fairseq finds models/ and tasks/ of a user-dir by itself, but nothing else, and nothing
    # at all if this package was imported before
    from fairseq_entmax import criterions, models, scoring, tasks
    from fairseq_entmax.decoding import everywhere

    everywhere.install()

    __all__ = ["compat", "criterions", "models", "scoring", "tasks"]
