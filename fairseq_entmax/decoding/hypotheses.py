"""What a search has found, and which of it has p > 0."""

import math
from typing import Any, Dict, List

import torch

# a finite log-probability that no string of a model can have
DEAD = -1e9

Hypothesis = Dict[str, Any]


def real_hypotheses(sentences: List[List[Hypothesis]]) -> List[List[Hypothesis]]:
    """Of each sentence the hypotheses that have p > 0, or one truncated one with score -inf.

    The numbers of a whole batch are read at once, for every look waits for a device.
    """
    everything = [h for hypotheses in sentences for h in hypotheses]
    if not everything:
        return sentences
    scores = torch.stack([h["score"] for h in everything])
    worst = torch.stack([h["positional_scores"].min() for h in everything])
    numbers = iter(torch.stack([scores, worst.to(scores)], 1).tolist())
    return [_real(hypotheses, [next(numbers) for _ in hypotheses]) for hypotheses in sentences]


def _real(hypotheses: List[Hypothesis], numbers: List[List[float]]) -> List[Hypothesis]:
    """``numbers``: the score of each, and the least of its positional scores."""
    living = [worst > DEAD / 2 for _, worst in numbers]  # no NaN either
    scores = [score for score, _ in numbers]
    real = [h for h, lives, score in zip(hypotheses, living, scores) if lives and score > -math.inf]
    if real:
        return real
    truncated = dict(hypotheses[0])
    truncated["score"] = torch.full_like(truncated["score"], -math.inf)
    if not living[0]:
        positional = truncated["positional_scores"]
        truncated["positional_scores"] = positional.masked_fill(positional < DEAD / 2, -math.inf)
    return [truncated]
