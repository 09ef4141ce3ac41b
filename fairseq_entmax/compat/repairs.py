"""What a repair is: a function that mends one fault of fairseq, applied once, when it is needed."""

import functools
import logging
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional

logger = logging.getLogger(__name__)

SWITCH = "FAIRSEQ_ENTMAX_COMPAT"  # "off", or the names of repairs to leave out, with commas
MARK = "_fairseq_entmax"

Function = Callable[[], None]


class Repair(NamedTuple):
    """``apply`` mends a fault; ``needed`` looks whether it is there, None: it is in every fairseq
    that was seen, and is not cheap to look for.
    """

    name: str
    apply: Function
    needed: Optional[Callable[[], bool]]


REPAIRS: List[Repair] = []


def repair(needed: Optional[Callable[[], bool]] = None) -> Callable[[Function], Function]:
    """Put a function on the list of repairs; its docstring names Fault, Versions and Test."""

    def register(function: Function) -> Function:
        REPAIRS.append(Repair(function.__name__, function, needed))
        return function

    return register


def apply() -> None:
    """Mend what is broken, once per process.

    Raises:
        ValueError: ``FAIRSEQ_ENTMAX_COMPAT`` names a repair that there is not.
    """
    left_out = _left_out()
    done: Dict[str, List[str]] = {"applied": [], "not needed here": [], "switched off": []}
    for name, mend, needed in REPAIRS:
        if name in left_out:
            done["switched off"].append(name)
        elif needed is not None and not needed():
            done["not needed here"].append(name)
        else:
            mend()
            done["applied"].append(name)
    logger.debug("repairs of fairseq: %s", done)


def _left_out() -> List[str]:
    wanted = os.environ.get(SWITCH, "")
    names = [name for name, _, _ in REPAIRS]
    if wanted == "off":
        return names
    left_out = [name.strip() for name in wanted.split(",") if name.strip()]
    unknown = [name for name in left_out if name not in names]
    if unknown:
        raise ValueError(f"{SWITCH} must be 'off' or some of {', '.join(names)}, got {wanted!r}")
    return left_out


def wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Replace ``owner.name`` by ``wrapper(original, *args, **kwargs)``, unless that was done."""
    original = getattr(owner, name)
    if hasattr(original, MARK):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(wrapped, MARK, True)
    setattr(owner, name, wrapped)
