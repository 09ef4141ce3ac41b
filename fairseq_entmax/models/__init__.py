"""Models; importing this package registers them with fairseq."""

from . import lstm, two_headed
from .names import name_near_archs
from .twins import register_twins

register_twins()
name_near_archs()

__all__ = ["lstm", "two_headed"]
