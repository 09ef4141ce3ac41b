"""How many tokens are possible, and how many positions attended to, along the best strings."""

from typing import Dict, Iterable, List, NamedTuple, Sequence

from torch import Tensor

from .attention import attention_weights, chosen
from .opened import Line, Opened
from .steps import next_token_probs


class Counts(NamedTuple):
    """Of one string: at each of its steps, tokens with p > 0 and positions with attention > 0."""

    support: List[int]
    attended: List[int]


class Position(NamedTuple):
    """Means over the strings that are long enough, at one position, counted from 1."""

    position: int
    support: float
    attended: float
    strings: int


def count(opened: Opened, line: Line, target: Tensor) -> Counts:
    """The counts along one string; attention is that of the last cross-attention, over all heads.

    Args:
        target: the tokens of the string and EOS, (tgt_len,).
    """
    sample = opened.sample([line])
    probs = next_token_probs(opened.models, sample, target)
    (last,) = chosen(attention_weights(opened.models, sample, target))
    attended = (last.head(None) > 0).sum(-1)
    return Counts((probs > 0).sum(-1).tolist(), attended.tolist())


def by_position(counts: Sequence[Counts], least: int = 3) -> List[Position]:
    """Means at each position that at least ``least`` strings have, or as many as there are.

    Raises:
        ValueError: there are no strings.
    """
    if not counts:
        raise ValueError("no strings to count on")
    longest = max(len(c.support) for c in counts)
    found = []
    for i in range(longest):
        here = [(c.support[i], c.attended[i]) for c in counts if i < len(c.support)]
        if len(here) >= min(least, len(counts)):
            support, attended = (sum(column) / len(here) for column in zip(*here))
            found.append(Position(i + 1, support, attended, len(here)))
    return found


def histogram(values: Iterable[int]) -> Dict[int, float]:
    """The share of each value, by rising value.

    Example:
        >>> histogram([1, 1, 2, 1])
        {1: 0.75, 2: 0.25}
    """
    listed = sorted(values)
    return {value: listed.count(value) / len(listed) for value in dict.fromkeys(listed)}
