"""The faults of fairseq that every user of this package would meet, mended in one place.

Each repair names the fault, the versions that have it and the test that fails without it. They are
applied when the package is imported, those that are needed; ``FAIRSEQ_ENTMAX_COMPAT=off``, or a
list of their names, switches them off.
"""

from . import batches, checkpoints, configs, decoding, names, precision
from .repairs import REPAIRS, apply

__all__ = [
    "REPAIRS",
    "apply",
    "batches",
    "checkpoints",
    "configs",
    "decoding",
    "names",
    "precision",
]
