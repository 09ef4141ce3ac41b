"""Attention with one head on the characters of a word and one on its features."""

from typing import Any, NamedTuple, Optional, Tuple

import torch
from fairseq.models.lstm import Linear
from torch import Tensor, nn

from fairseq_entmax.functional import entmax

from .luong_attention import EntmaxLuongAttention

# what stands at a source position
PADDING, CHARACTER, TAG = range(3)
GATES = {"none": None, "softmax": 1.0, "entmax": 1.5, "sparsemax": 2.0}


class TwoHeadedWeights(NamedTuple):
    """What one step attended to: both heads over all source positions, (bsz, src_len), each 0 at
    the other's positions, and the weights of the heads, (bsz, 2).
    """

    lemma: Tensor
    tags: Tensor
    gate: Tensor


class TwoHeadedAttention(nn.Module):
    """Two attentions with a query s, whose contexts c_1 and c_2 are joined, gated or not.

    ======= ======================================================================
    ungated h = tanh(W [c_1; c_2; s])
    gated   g = entmax(V [c_1; c_2; s] + b), h = g_1 tanh(W_1 [c_1; s]) + g_2 tanh(W_2 [c_2; s])
    ======= ======================================================================

    A head without positions (a word without features) has c = 0 and, gated, g = 0.

    Args:
        query_dim: size of the decoder state s.
        source_dim: size of the states of both encoders.
        output_dim: size of h.
        alpha: of both attentions, >= 1.
        score: "dot", "general" or "mlp".
        gate_alpha: of the gate, >= 1; None is ungated.
        share_output: W_1 is W_2 (gated only).
        learn_alpha: each attention learns its alpha in (1, 2), from ``alpha`` on.

    Raises:
        ValueError: an alpha below 1, or shared output projections without a gate.

    Source:
        Peters and Martins, "IT-IST at the SIGMORPHON 2019 Shared Task" (2019).

    Example::

        >>> kinds = torch.tensor([[CHARACTER], [TAG], [PADDING]])  # src_len 3, bsz 1
        >>> attention = TwoHeadedAttention(query_dim=4, source_dim=6, output_dim=4)
        >>> h, weights = attention(torch.randn(1, 4), torch.randn(3, 1, 6), kinds)
        >>> h.shape, weights.lemma.tolist()
        (torch.Size([1, 4]), [[1.0, 0.0, 0.0]])
    """

    def __init__(
        self,
        query_dim: int,
        source_dim: int,
        output_dim: int,
        *,
        alpha: float = 1.5,
        score: str = "general",
        gate_alpha: Optional[float] = 1.5,
        share_output: bool = False,
        learn_alpha: bool = False,
    ) -> None:
        super().__init__()
        if gate_alpha is not None and not gate_alpha >= 1:
            raise ValueError(f"the alpha of a gate must be >= 1, got {gate_alpha}")
        if share_output and gate_alpha is None:
            raise ValueError(
                "without a gate there is one output projection, nothing to share: "
                "choose a gate, or drop --share-gate-output"
            )
        self.gate_alpha = gate_alpha
        options = (query_dim, source_dim, output_dim, alpha, score, learn_alpha)
        self.heads = nn.ModuleList(EntmaxLuongAttention(*options) for _ in range(2))
        joint_dim = 2 * source_dim + query_dim
        if gate_alpha is None:
            for head in self.heads:
                head.output_proj = nn.Identity()
            self.output_proj = Linear(joint_dim, output_dim, bias=False)
        else:
            self.gate = Linear(joint_dim, 2)
            if share_output:
                self.heads[1].output_proj = self.heads[0].output_proj

    def forward(
        self, query: Tensor, source: Tensor, kinds: Tensor
    ) -> Tuple[Tensor, TwoHeadedWeights]:
        """query (bsz, query_dim), source (src_len, bsz, source_dim) and what stands where,
        (src_len, bsz) -> h (bsz, output_dim) and the weights.
        """
        heads: Any = self.heads
        elsewhere = [kinds != CHARACTER, kinds != TAG]
        attended = [head.attend(query, source, mask) for head, mask in zip(heads, elsewhere)]
        contexts, probs = zip(*attended)
        joint = torch.cat([*contexts, query], dim=1)
        present = torch.stack([~mask.all(dim=0) for mask in elsewhere], dim=1)  # bsz x 2
        if self.gate_alpha is None:
            gate = present.to(query.dtype) / present.sum(dim=1, keepdim=True)
            output = torch.tanh(self.output_proj(joint))
        else:
            scores = self.gate(joint).masked_fill(~present, float("-inf"))
            gate = entmax(scores, self.gate_alpha)
            candidates = torch.stack(
                [
                    torch.tanh(head.output_proj(torch.cat([context, query], dim=1)))
                    for head, context in zip(heads, contexts)
                ],
                dim=1,
            )  # bsz x 2 x output_dim
            output = (gate.unsqueeze(2) * candidates).sum(dim=1)
        lemma, tags = probs
        return output, TwoHeadedWeights(lemma, tags, gate)
