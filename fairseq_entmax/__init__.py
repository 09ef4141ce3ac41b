"""Sparse sequence-to-sequence models for fairseq: ``--user-dir fairseq_entmax``.

Importing it repairs fairseq and registers archs, criterions, tasks and scorers. With
``FAIRSEQ_ENTMAX_REGISTER=off`` in the environment that is left out, unless fairseq has been imported
before: ``fairseq_entmax.functional`` alone is plain torch, and imports in the time of torch.
"""

import os
import sys
from importlib.util import find_spec

__version__ = "0.1.0"

SWITCH = "FAIRSEQ_ENTMAX_REGISTER"


def _wants_fairseq() -> bool:
    """Whether fairseq is here, or about to be imported."""
    if "fairseq" in sys.modules:
        return True
    return os.environ.get(SWITCH) != "off" and find_spec("fairseq") is not None


if _wants_fairseq():
    from fairseq_entmax import compat

    compat.apply()

    # fairseq finds models/ and tasks/ of a user-dir by itself, but nothing else, and nothing
    # at all if this package was imported before
    from fairseq_entmax import criterions, models, scoring, tasks
    from fairseq_entmax.decoding import everywhere

    everywhere.install()

    __all__ = ["compat", "criterions", "models", "scoring", "tasks"]
