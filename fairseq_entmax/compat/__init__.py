"""The faults of fairseq that every user of this package would meet, mended in one place.

Each repair names the fault, the versions that have it and the test that fails without it. They are
applied when the package is imported, those whose fault is there; ``FAIRSEQ_ENTMAX_COMPAT=off``, or
a list of their names, switches them off; ``LOGLEVEL=DEBUG`` says what became of each.
"""

from . import (
    batches,
    binarised,
    checkpoints,
    configs,
    copies,
    decoding,
    endings,
    language_models,
    lengths,
    loading,
    names,
    overrides,
    precision,
    processes,
    shards,
    tasks,
)
from .repairs import REPAIRS, apply

__all__ = [
    "REPAIRS",
    "apply",
    "batches",
    "binarised",
    "checkpoints",
    "configs",
    "copies",
    "decoding",
    "endings",
    "language_models",
    "lengths",
    "loading",
    "names",
    "overrides",
    "precision",
    "processes",
    "shards",
    "tasks",
]
