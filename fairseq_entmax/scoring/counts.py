"""What is counted of each answer, the rates of the sums, and how certain they are.

A row of counts belongs to one answer; rows add up. Macro averages are means over groups (languages)
of the rates of their sums.
"""

from collections import Counter
from typing import Dict, Mapping, Sequence, Tuple

import numpy as np

from fairseq_entmax.data.alphabet import BORDER, morphemes, single_characters

from .distance import levenshtein

COLUMNS = (
    "words",
    "correct",
    "distance",  # Levenshtein, in symbols
    "symbols",  # of the reference
    "character_distance",
    "characters",
    "overlap",  # morphemes of both, as multisets
    "answered",  # morphemes of the answer
    "expected",  # morphemes of the reference
)
RESAMPLES = 1000


def count(reference: Sequence[str], answer: Sequence[str], segmented: bool) -> Tuple[int, ...]:
    """The row of one answer, in the order of COLUMNS.

    Args:
        reference, answer: symbols.
        segmented: also count morphemes.

    Source:
        Morphemes: the evaluation of the SIGMORPHON 2022 shared task on morpheme segmentation;
        repeated ones count as often as both sides have them.

    Example:
        >>> count("a b @@ c".split(), "a @@ c".split(), segmented=True)
        (1, 0, 1, 4, 1, 4, 1, 2, 2)
    """
    same = list(reference) == list(answer)
    distance = 0 if same else levenshtein(answer, reference)
    letters = single_characters(reference)
    letter_distance = 0 if same else levenshtein(single_characters(answer), letters)
    row = (1, int(same), distance, len(reference), letter_distance, len(letters))
    if not segmented:
        return (*row, 0, 0, 0)
    gold, given = morphemes(reference), morphemes(answer)
    overlap = sum((Counter(gold) & Counter(given)).values())
    return (*row, overlap, len(given), len(gold))


def is_segmented(symbols: Sequence[str]) -> bool:
    return BORDER in symbols


def rates(sums: np.ndarray) -> Dict[str, np.ndarray]:
    """The metrics of sums of rows.

    accuracy, wer = 100 correct / words, 100 - accuracy; per = 100 distance / symbols; cer likewise
    in characters; levenshtein = distance / words; precision = 100 overlap / answered, recall =
    100 overlap / expected, f1 = 2 precision recall / (precision + recall).

    Args:
        sums: (..., len(COLUMNS)).

    Returns:
        (...) for each name; NaN where nothing was counted.
    """
    c = {name: sums[..., i].astype(np.float64) for i, name in enumerate(COLUMNS)}
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = 100 * c["correct"] / c["words"]
        return {
            "accuracy": accuracy,
            "wer": 100 - accuracy,
            "per": 100 * c["distance"] / c["symbols"],
            "cer": 100 * c["character_distance"] / c["characters"],
            "levenshtein": c["distance"] / c["words"],
            "precision": 100 * c["overlap"] / c["answered"],
            "recall": 100 * c["overlap"] / c["expected"],
            "f1": 200 * c["overlap"] / (c["answered"] + c["expected"]),
        }


def macro(sums: np.ndarray) -> Dict[str, float]:
    """Means over groups (axis 0) of the rates of those that have words."""
    present = sums[sums[:, 0] > 0]
    return {name: float(values.mean()) for name, values in rates(present).items()}


def intervals(
    groups: Sequence[np.ndarray], resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Mapping[str, Tuple[float, float]]:
    """Percentile bootstrap intervals of the macro averages; words are drawn within their group.

    Args:
        groups: rows of each, (words, len(COLUMNS)); none is empty.
        resamples: how often to draw.
        seed: of the draws.
        level: the share of the resamples inside.

    Returns:
        (low, high) of each metric of :func:`rates` that was counted.

    Source:
        Efron and Tibshirani (1993), chapter 13.
    """
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, len(groups), len(COLUMNS)))
    for g, rows in enumerate(groups):
        for r in range(resamples):
            drawn = rng.integers(len(rows), size=len(rows))
            sums[r, g] = np.bincount(drawn, minlength=len(rows)) @ rows
    tails = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    return {
        name: tuple(np.percentile(values.mean(axis=1), tails))
        for name, values in rates(sums).items()
        if not np.isnan(values).any()
    }
