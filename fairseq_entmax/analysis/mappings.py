"""The two figures of the paper: entropies H_alpha([p, 1 - p]), and mappings [t, 0] -> p."""

from typing import Dict, List, Sequence, Tuple

import torch

from fairseq_entmax.functional import entmax
from fairseq_entmax.functional.reference import tsallis_entropy

Points = List[Tuple[float, float]]
_STEPS = 201


def entropies(alphas: Sequence[float]) -> Dict[float, Points]:
    """(p, H_alpha([p, 1 - p])) for p from 0 to 1.

    Source:
        Peters, Niculae, Martins (ACL 2019), equation 4 and figure 3.

    Example:
        >>> entropies([2.0])[2.0][100]
        (0.5, 0.25)
    """
    p = torch.linspace(0, 1, _STEPS, dtype=torch.float64)
    pairs = torch.stack([p, 1 - p], dim=-1)
    return {a: list(zip(p.tolist(), tsallis_entropy(pairs, a).tolist())) for a in alphas}


def mappings(alphas: Sequence[float], reach: float = 3.0) -> Dict[float, Points]:
    """(t, first entry of entmax_alpha([t, 0])) for t from -reach to reach.

    Source:
        Peters, Niculae, Martins (ACL 2019), figure 2.

    Example:
        >>> points = mappings([2.0])[2.0]
        >>> points[0], points[-1]
        ((-3.0, 0.0), (3.0, 1.0))
    """
    t = torch.linspace(-reach, reach, _STEPS, dtype=torch.float64)
    scores = torch.stack([t, torch.zeros_like(t)], dim=-1)
    return {a: list(zip(t.tolist(), entmax(scores, a)[:, 0].tolist())) for a in alphas}


def check_alphas(alphas: Sequence[float]) -> None:
    """Raises:
    ValueError: one of them is below 1.
    """
    for alpha in alphas:
        if not 1 <= alpha < float("inf"):
            raise ValueError(
                f"an alpha is a number >= 1 (1 is softmax, 2 is sparsemax), got {alpha}"
            )
