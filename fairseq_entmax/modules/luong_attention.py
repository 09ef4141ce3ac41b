"""Attention of recurrent decoders (Luong et al. 2015, Bahdanau et al. 2015) with alpha-entmax."""

from typing import Optional, Tuple, Union

import torch
import torch.nn as nn
from fairseq.models.lstm import AttentionLayer, Linear
from torch import Tensor

from fairseq_entmax.functional import entmax
from fairseq_entmax.functional.mapping import entmax_dense, entmax_learned

from .learned_alpha import LearnedAlpha

SCORES = ("dot", "general", "mlp")


class EntmaxLuongAttention(nn.Module):
    """One query over the source: p = entmax_alpha(score(s, h_1), ..., score(s, h_n)).

    ======== ============================= =====================================
    score    score(s, h)                   parameters
    ======== ============================= =====================================
    dot      s . h                         none (the sizes must agree)
    general  (W s) . h                     input_proj
    mlp      v . tanh(W s + U h)           input_proj, source_proj, score_proj
    ======== ============================= =====================================

    Returns tanh(V [sum_j p_j h_j; s]) with V the ``output_proj``. With score "general" the
    parameters are those of fairseq's ``AttentionLayer``.

    Args:
        query_dim: size of the decoder state s.
        source_dim: size of the encoder states h.
        output_dim: size of the output.
        alpha: >= 1; 1 is softmax, 2 is sparsemax.
        score: "dot", "general" or "mlp".
        learn_alpha: alpha is a parameter in (1, 2) that starts from ``alpha``.

    Raises:
        ValueError: alpha < 1, or to be learned and not in (1, 2); an unknown score, or dot with
            unequal sizes.

    Source:
        Luong, Pham, Manning (EMNLP 2015), eq. 5-8; Bahdanau et al. (ICLR 2015), appendix A.1.2;
        Peters, Niculae, Martins (ACL 2019), section 4.

    Example::

        >>> attention = EntmaxLuongAttention(2, 2, 2, alpha=2, score="dot")
        >>> source = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # src_len 2, bsz 1
        >>> _, probs = attention(torch.tensor([[3.0, 0.0]]), source, None)
        >>> probs.tolist()
        [[1.0], [0.0]]
    """

    def __init__(
        self,
        query_dim: int,
        source_dim: int,
        output_dim: int,
        alpha: float = 1.5,
        score: str = "general",
        learn_alpha: bool = False,
    ) -> None:
        super().__init__()
        if not alpha >= 1:
            raise ValueError(f"attention alpha must be >= 1, got {alpha}")
        if score not in SCORES:
            raise ValueError(f"attention score must be one of {', '.join(SCORES)}, got {score!r}")
        if score == "dot" and query_dim != source_dim:
            raise ValueError(
                f"dot attention needs decoder and encoder states of one size, got {query_dim} "
                f"and {source_dim}: use the score 'general'"
            )
        self.alpha = float(alpha)
        self.learned_alpha = LearnedAlpha(1, alpha) if learn_alpha else None
        self.score = score
        self.input_proj = nn.Identity()
        self.source_proj = nn.Identity()
        self.score_proj = nn.Identity()
        if score != "dot":
            self.input_proj = Linear(query_dim, source_dim, bias=False)
        if score == "mlp":
            self.source_proj = Linear(source_dim, source_dim, bias=False)
            self.score_proj = Linear(source_dim, 1, bias=False)
        self.output_proj = Linear(query_dim + source_dim, output_dim, bias=False)

    @classmethod
    def from_stock(
        cls,
        attention: Union[AttentionLayer, "EntmaxLuongAttention"],
        alpha: float,
        score: Optional[str] = None,
        learn_alpha: bool = False,
    ) -> nn.Module:
        """The twin of a built attention, sharing its projections; alpha = 1 is itself.

        Without ``score`` it scores as it did.
        """
        built_score = getattr(attention, "score", "general")
        if alpha == 1 and not learn_alpha and score in (None, built_score):
            return attention
        output_dim, joint_dim = attention.output_proj.weight.shape
        query_dim, source_dim = _sizes(attention, joint_dim)
        sparse = cls(query_dim, source_dim, output_dim, alpha, score or built_score, learn_alpha)
        for name, projection in attention.named_children():
            if isinstance(getattr(sparse, name, None), nn.Linear) and projection is not None:
                setattr(sparse, name, projection)
        return sparse

    def forward(
        self, query: Tensor, source: Tensor, padding_mask: Optional[Tensor]
    ) -> Tuple[Tensor, Tensor]:
        """query (bsz, query_dim), source (src_len, bsz, source_dim), mask (src_len, bsz), True at
        padding -> output (bsz, output_dim) and p (src_len, bsz).
        """
        context, probs = self.attend(query, source, padding_mask)
        output = torch.tanh(self.output_proj(torch.cat([context, query], dim=1)))
        return output, probs.t()

    def attend(
        self, query: Tensor, source: Tensor, padding_mask: Optional[Tensor]
    ) -> Tuple[Tensor, Tensor]:
        """The context sum_j p_j h_j (bsz, source_dim), without ``output_proj``, and p (bsz,
        src_len); both are 0 where all of a source is padding.
        """
        scores = self.scores(query, source)  # bsz x src_len
        if padding_mask is not None:
            scores = scores.masked_fill(padding_mask.t(), float("-inf"))
        if torch.jit.is_scripting():
            learned = self.learned_alpha
            if learned is not None:
                probs = learned.entmax_dense(scores)
            else:
                probs = entmax_dense(scores, self.alpha)
        else:
            probs = self.sparse_weights(scores)
        return torch.einsum("bs,sbd->bd", probs, source), probs

    def scores(self, query: Tensor, source: Tensor) -> Tensor:
        """Unnormalised attention, (bsz, src_len)."""
        projected = self.input_proj(query)
        if self.score == "mlp":
            hidden = torch.tanh(projected.unsqueeze(0) + self.source_proj(source))
            scores: Tensor = self.score_proj(hidden)
            return scores.squeeze(2).t()
        return torch.einsum("bd,sbd->bs", projected, source)

    @torch.jit.unused
    def sparse_weights(self, scores: Tensor) -> Tensor:
        """The attention weights, (bsz, src_len) -> the same shape."""
        if self.learned_alpha is None:
            return entmax(scores, self.alpha)
        return entmax_learned(scores, self.learned_alpha())


def _sizes(attention: nn.Module, joint_dim: int) -> Tuple[int, int]:
    """The sizes of query and source."""
    if not isinstance(attention.input_proj, nn.Linear):  # dot: they agree
        return joint_dim // 2, joint_dim // 2
    source_dim, query_dim = attention.input_proj.weight.shape
    return query_dim, source_dim
