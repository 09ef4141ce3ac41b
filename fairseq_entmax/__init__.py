"""Sparse sequence-to-sequence models for fairseq: ``--user-dir fairseq_entmax``.

Importing it imports and repairs fairseq, and registers archs, criterions, tasks and scorers.
``FAIRSEQ_ENTMAX_REGISTER=off`` in the environment leaves that out, unless fairseq is there already:
then ``fairseq_entmax.functional``, which is plain torch, is imported as fast as torch.
"""

import os
import sys
from importlib.util import find_spec

__version__ = "0.2.0"


if "fairseq" in sys.modules or (
    os.environ.get("FAIRSEQ_ENTMAX_REGISTER") != "off" and find_spec("fairseq") is not None
):
    from fairseq_entmax import compat

    compat.apply()

    # fairseq finds models/ and tasks/ of a user-dir by itself, but nothing else, and nothing
    # at all if this package was imported before
    from fairseq_entmax import criterions, models, scoring, tasks
    from fairseq_entmax.decoding import everywhere

    everywhere.install()

    __all__ = ["compat", "criterions", "models", "scoring", "tasks"]
