"""Sets of possible strings that hold the right one as often as was asked for.

Divide the scores of a sparse model by a temperature: the larger it is, the more symbols have p > 0
at each step, and the set of strings with p > 0 only grows. So every word has a critical
temperature, above which its right answer is possible; the quantile of those of n other words is the
temperature of split-conformal prediction.

What is guaranteed: if a word and the n calibration words are exchangeable (drawn alike, from the
same mixture of languages), the word's right answer is possible with probability >= the asked
coverage, over the draw of the calibration words and of the word. Not: for each language, each word,
or words of another kind; and not that a search lists the whole set.
"""

import math
import random
from typing import Any, Dict, List, NamedTuple, Sequence

import torch
from torch import Tensor

from fairseq_entmax.data.transduction import Item
from fairseq_entmax.decoding.everywhere import output_alpha_of

_ROUNDING = 1e-5  # relative: scores are float32, and differ a little with the shape of a batch
LEVELS = (0.90, 0.95, 0.99)


def critical_temperatures(scores: Tensor, targets: Tensor, alpha: float) -> Tensor:
    """The temperature above which each target has p > 0.

    p_y > 0 under entmax_alpha(z / T) iff sum_j [(alpha - 1) (z_j - z_y) / T]_+^k < 1, k = 1 /
    (alpha - 1), so iff T > (alpha - 1) ||[z - z_y]_+||_k, the k-norm.

    Args:
        scores: z, (..., V).
        targets: y, (...).
        alpha: >= 1; 1 is softmax, where every symbol is possible.

    Returns:
        (...) in float64, 0 where the target has the highest score.

    Source:
        the definition of tau in Peters, Niculae and Martins (2019), equation 10.

    Example:
        >>> z = torch.tensor([[2.0, 1.5, 0.0]])
        >>> critical_temperatures(z, torch.tensor([1]), alpha=2.0).item()
        0.5
    """
    gaps = (scores.double() - scores.double().gather(-1, targets.unsqueeze(-1))).clamp(min=0)
    largest = gaps.amax(-1, keepdim=True)
    if alpha == 1:
        return torch.zeros_like(largest[..., 0])
    relative = gaps / largest.clamp(min=1e-300)  # so that no power overflows
    power = 1 / (alpha - 1)
    return (alpha - 1) * largest[..., 0] * relative.pow(power).sum(-1).pow(1 / power)


@torch.no_grad()
def word_temperatures(transducer: Any, items: Sequence[Item]) -> List[float]:
    """The critical temperature of each item's target: the largest of its steps, the end included.

    With an ensemble a symbol is possible where it is so for one of the models.

    Args:
        transducer: a :class:`.Transducer`.
        items: with targets.

    Returns:
        One for each item; infinity where the target has a symbol that the models do not know.
    """
    words = transducer.task.target_dictionary
    found: Dict[int, float] = {}
    for ids, sample in transducer.samples(items):
        targets = sample["target"]
        steps = None
        for model in transducer.models:
            scores = model(**sample["net_input"])[0].float()
            alpha = output_alpha_of(model) or 1.0
            own = critical_temperatures(scores, targets, alpha)
            steps = own if steps is None else torch.minimum(steps, own)
        steps = steps.masked_fill(targets == words.pad(), 0.0)
        steps = steps.masked_fill(targets == words.unk(), math.inf)
        found.update(zip(ids, steps.amax(1).tolist()))
    return [found[i] for i in range(len(items))]


def temperature_for(critical: Sequence[float], coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest critical temperature, and a little.

    Args:
        critical: of n calibration words.
        coverage: in (0, 1).

    Returns:
        The temperature; infinity where n is too small for the coverage, or too many words cannot
        be written at all.

    Source:
        Vovk, Gammerman and Shafer (2005); split conformal prediction.

    Example:
        >>> round(temperature_for([0.4, 0.1, 0.2, 0.3], coverage=0.75), 3)
        0.4
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage is between 0 and 1, got {coverage}")
    rank = math.ceil((len(critical) + 1) * coverage - 1e-9)
    if rank > len(critical):
        return math.inf
    return max(sorted(critical)[rank - 1], 1e-6) * (1 + _ROUNDING)


class Check(NamedTuple):
    """Coverage of the words that were held back, over random halves."""

    asked: float
    mean: float
    low: float  # of the halves
    high: float


def check_on_halves(
    critical: Sequence[float], coverage: float, splits: int = 100, seed: int = 0
) -> Check:
    """Calibrates on one half of the words and counts on the other, again and again.

    Args:
        critical: of all words.
        splits: random halvings.
        seed: of them.

    Raises:
        ValueError: fewer than two words.
    """
    if len(critical) < 2:
        raise ValueError(f"halves need two words, got {len(critical)}")
    rng, listed, shares = random.Random(seed), list(critical), []
    for _ in range(splits):
        rng.shuffle(listed)
        half = len(listed) // 2
        temperature = temperature_for(listed[:half], coverage)
        shares.append(sum(t < temperature for t in listed[half:]) / (len(listed) - half))
    return Check(coverage, sum(shares) / splits, min(shares), max(shares))
