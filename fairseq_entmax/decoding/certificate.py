"""What a finished search proves about one sentence, in numbers that allow for rounding."""

import math
from typing import NamedTuple, Optional, TypeVar

from torch import Tensor

Number = TypeVar("Number", float, Tensor)

# rounding of a cumulative log-probability, in units of eps * (tokens + 1) * (1 + |log p|): one for
# each addition, and as much again for the logarithms and for other shapes of the same batch
_SAFETY = 4


class Certificate(NamedTuple):
    """What is proven about the hypotheses of one sentence.

    "Allowed" is every string that the search was to choose from: within the length limits, under
    the forced prefix and n-gram block. Logarithms are natural.

    Attributes:
        search: ``beam`` or ``exact``.
        exact: the first hypothesis has the highest score of all allowed strings.
        proven: so many of the hypotheses, taken by probability, are the most probable allowed
            strings; 0 when the most probable one may be missing.
        complete: the list holds every allowed string with p > 0.
        mass: probability of the list.
        pruned: probability of the prefixes and strings that the search dropped. What is missing
            from mass + pruned = 1 is not allowed.
        bound: the largest log p that a dropped string can have.
        expansions: number of prefixes for which the decoder computed the next token.
        support: mean number of allowed next tokens with p > 0 over these prefixes.
        empty: p of the empty string; None where ``--min-len`` forbids it.

    Example::

        >>> proof = Certificate("beam", True, 2, False, 0.98, 0.02, -4.2, 29, 1.4, None)
        >>> proof.exact and not proof.complete  # the best string is found, others have p > 0
        True
    """

    search: str
    exact: bool
    proven: int
    complete: bool
    mass: float
    pruned: float
    bound: float
    expansions: int
    support: float
    empty: Optional[float]


class Objective(NamedTuple):
    """The score that ranks strings: log p / length ** len_penalty, where 0 is log p itself.

    Lengths count EOS; ``longest`` is that of the longest allowed string.

    Example::

        >>> ranking = Objective(len_penalty=1.0, longest=4)
        >>> ranking.score(-6.0, length=2), ranking.bound(-6.0, length=2)
        (-3.0, -1.5)
    """

    len_penalty: float
    longest: int

    def score(self, log_prob: Number, length: int) -> Number:
        """The score of strings of ``length`` tokens, a float or (n,) as log p is."""
        return log_prob / math.pow(length, self.len_penalty)

    def bound(self, log_prob: Number, length: int) -> Number:
        """The highest score of a string that begins with a prefix and has at least ``length``
        tokens: log p only falls, and a positive penalty favours the longest.
        """
        return self.score(log_prob, self.longest if self.len_penalty > 0 else length)


def upper(log_prob: Number, length: int, eps: float) -> Number:
    """No less than the true log p of ``length`` tokens that were added up in numbers of ``eps``."""
    share = _SAFETY * eps * (length + 1)
    return log_prob * (1 - share) + share


def lower(log_prob: Number, length: int, eps: float) -> Number:
    """No more than the true log p; see :func:`upper`."""
    share = _SAFETY * eps * (length + 1)
    return log_prob * (1 + share) - share
