"""The edit distance between two strings of symbols."""

from typing import Sequence


def levenshtein(one: Sequence[object], other: Sequence[object]) -> int:
    """The least number of insertions, deletions and substitutions that turn one into the other.

    d(i, j) = min(d(i-1, j) + 1, d(i, j-1) + 1, d(i-1, j-1) + [one_i != other_j])

    Args:
        one, other: strings of symbols, of any lengths.

    Returns:
        d(len(one), len(other)); 0 where they are the same.

    Source:
        Wagner and Fischer (1974).

    Example:
        >>> levenshtein("kitten", "sitting")
        3
    """
    row = list(range(len(other) + 1))
    for i, x in enumerate(one, 1):
        above_left, row[0] = row[0], i
        for j, y in enumerate(other, 1):
            above_left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above_left + (x != y))
    return row[-1]
