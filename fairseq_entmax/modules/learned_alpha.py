"""An alpha for each attention head that is learned with the model."""

import math
from typing import Any, Dict

import torch
from torch import Tensor, nn

from fairseq_entmax.functional.mapping import entmax_dense_learned


class LearnedAlpha(nn.Module):
    """alpha_h = 1 + sigmoid(a_h) for each head h: between softmax and sparsemax.

    Args:
        n_heads: number of heads, each with one parameter a_h.
        start: the alpha that all begin with, in (1, 2).

    Raises:
        ValueError: ``start`` does not lie in (1, 2), where alone a can move.

    Source:
        Correia, Niculae, Martins (EMNLP 2019), section 3.2.

    Example::

        >>> LearnedAlpha(n_heads=2, start=1.5)().tolist()
        [1.5, 1.5]
    """

    def __init__(self, n_heads: int, start: float) -> None:
        super().__init__()
        check_learned_start(start)
        logit = math.log(start - 1) - math.log(2 - start)
        self.scores = nn.Parameter(torch.full((n_heads,), logit))

    def forward(self) -> Tensor:
        """The alphas, (heads,); in float32 or more, whatever the parameters are."""
        wide = torch.promote_types(self.scores.dtype, torch.float32)
        return 1 + torch.sigmoid(self.scores.to(wide))

    @torch.jit.export
    def entmax_dense(self, scores: Tensor) -> Tensor:
        """For TorchScript: scores (bsz * heads, tgt_len, src_len) -> probs of the same shape."""
        alphas = 1 + torch.sigmoid(self.scores.float())
        by_row = alphas.repeat(scores.size(0) // alphas.size(0))
        return entmax_dense_learned(scores, by_row.view([-1] + [1] * (scores.dim() - 1)))

    def upgrade_state_dict_named(self, state_dict: Dict[str, Tensor], name: str) -> None:
        """A checkpoint without them, as in ``--finetune-from-model``, leaves their start."""
        state_dict.setdefault(f"{name}.scores", self.scores.detach().clone())


def check_learned_start(alpha: float) -> None:
    """Raises:
    ValueError: a learned alpha cannot start there.
    """
    if not 1 < alpha < 2:
        raise ValueError(
            f"--learn-attention-alpha moves alpha within (1, 2) and starts from "
            f"--attention-alpha, which must lie in it, got {alpha}"
        )


def learned_alphas(model: nn.Module) -> Dict[str, Tensor]:
    """The learned alphas (heads,) of each attention, by the attention's name in the model."""
    named: Dict[str, Any] = dict(model.named_modules())
    return {
        name.rsplit(".", 1)[0]: module().detach()
        for name, module in named.items()
        if isinstance(module, LearnedAlpha)
    }
