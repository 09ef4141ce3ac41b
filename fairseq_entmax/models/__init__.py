"""Models; importing this package registers them with fairseq."""

from . import lstm, two_headed
from .forks import warn_of_forks
from .names import name_near_archs
from .twins import register_twins

register_twins()
name_near_archs()
warn_of_forks()

__all__ = ["lstm", "two_headed"]
