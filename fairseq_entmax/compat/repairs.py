"""What a repair is: a function that mends one fault of fairseq, applied when the fault is there."""

import logging
import os
from typing import Callable, List, NamedTuple

logger = logging.getLogger(__name__)
# as fairseq's own logs; one of its models sets the root logger to DEBUG when it is imported
logger.setLevel(os.environ.get("LOGLEVEL", "INFO").upper())

SWITCH = "FAIRSEQ_ENTMAX_COMPAT"  # "off", or the names of repairs to leave out, with commas

Function = Callable[[], None]


class Repair(NamedTuple):
    """``apply`` mends a fault; ``needed`` looks for the fault itself, which is gone once mended,
    by us or by fairseq.
    """

    name: str
    apply: Function
    needed: Callable[[], bool]


REPAIRS: List[Repair] = []


def repair(needed: Callable[[], bool]) -> Callable[[Function], Function]:
    """Put a function on the list of repairs; its docstring names Fault, Versions and Test."""

    def register(function: Function) -> Function:
        REPAIRS.append(Repair(function.__name__, function, needed))
        return function

    return register


def apply() -> None:
    """Mend what is broken; safe to call again.

    Raises:
        ValueError: ``FAIRSEQ_ENTMAX_COMPAT`` names an unknown repair.
    """
    left_out = _left_out()
    for name, mend, needed in REPAIRS:
        if name in left_out:
            outcome = "switched off"
        elif _has_fault(name, needed):
            mend()
            outcome = "applied"
        else:
            outcome = "not needed"
        logger.debug("%s: %s", name, outcome)


def _has_fault(name: str, needed: Callable[[], bool]) -> bool:
    """A fairseq in which the fault cannot be looked for is taken to have it."""
    try:
        return needed()
    except Exception as error:
        logger.debug("%s: %s: %s", name, type(error).__name__, error)
        return True


def _left_out() -> List[str]:
    wanted = os.environ.get(SWITCH, "")
    names = [name for name, _, _ in REPAIRS]
    if wanted.strip() == "off":
        return names
    left_out = [name.strip() for name in wanted.split(",") if name.strip()]
    unknown = [name for name in left_out if name not in names]
    if unknown:
        raise ValueError(f"{SWITCH} must be 'off' or some of {', '.join(names)}, got {wanted!r}")
    return left_out
