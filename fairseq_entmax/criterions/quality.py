"""What validation says of a model's probabilities that is finite where a reference has p = 0."""

import math
from typing import Any, Dict

from fairseq.logging import metrics
from torch import Tensor

from fairseq_entmax.functional.metrics import epsilon_nll, js_divergence, sparsemax_score

EPSILON = 1e-6
QUALITY = ("nll_eps", "js", "sparsemax_score")
EPSILON_HELP = (
    "validation logs ppl_eps, perplexity with this added to every probability; at 0 it is "
    "perplexity itself, infinite once a reference has p = 0"
)


def quality_sums(
    target_probs: Tensor, squared_norm: Tensor, counted: Tensor, n_classes: int, epsilon: float
) -> Dict[str, Tensor]:
    """Sums over the counted positions, to be logged by a criterion at validation.

    Args:
        target_probs, squared_norm: p_y and |p|^2 of every position.
        counted: a mask of the same shape.
        n_classes: the number of words.
    """
    gold, norm = target_probs[counted], squared_norm[counted]
    return {
        "nll_eps": epsilon_nll(gold, n_classes, epsilon).sum(),
        "js": js_divergence(gold).sum(),
        "sparsemax_score": sparsemax_score(gold, norm).sum(),
    }


def log_quality(logging_outputs: Any, sums: Dict[str, Any], n_tokens: Any) -> None:
    """Means of what :func:`quality_sums` added up; nothing in training, which has no such sums.

    ``sums`` are those of all that is logged, with the values of ``QUALITY``.
    """
    if not any("nll_eps" in log for log in logging_outputs):
        return
    # fairseq prints no meter that begins with _
    for name, meter, digits in (
        ("nll_eps", "_nll_eps", None),
        ("js", "js", 4),
        ("sparsemax_score", "sparsemax_score", 4),
    ):
        metrics.log_scalar(meter, sums[name] / n_tokens, n_tokens, round=digits)
    metrics.log_derived("ppl_eps", _ppl_eps)


def _ppl_eps(meters: Any) -> float:
    try:
        return round(math.exp(meters["_nll_eps"].avg), 3)
    except OverflowError:
        return math.inf
