"""Whether the kernels run on a device of this machine, and how they name an alpha."""

import importlib
import logging
import os
from functools import lru_cache
from typing import Optional

import torch

from ..contract import SWITCH

logger = logging.getLogger(__name__)

TYPES = (torch.float32, torch.bfloat16, torch.float16)
_OLDEST = (3, 2)
_LEAST_CAPABILITY = (8, 0)


@lru_cache(maxsize=None)
def serves(device: torch.device) -> bool:
    """Whether Triton is there, new enough and not switched off, and compiles for this GPU."""
    if os.environ.get(SWITCH) == "off" or torch.version.cuda is None or not _installed():
        return False
    return torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


def _installed() -> bool:
    try:
        version: str = importlib.import_module("triton").__version__
    except ImportError:
        logger.info("Triton is missing: on a GPU torch does the work of the kernels")
        return False
    return tuple(int(part) for part in version.split(".")[:2]) >= _OLDEST


def kind_of(alpha: Optional[float]) -> int:
    """The KIND of :mod:`.solve`: 15 and 20 have closed forms, 0 is any alpha in (1, 2]."""
    return {1.5: 15, 2.0: 20}.get(alpha or 0.0, 0)
