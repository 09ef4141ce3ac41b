"""fairseq's multi-head attention with alpha-entmax in place of softmax."""

import math
from types import FunctionType
from typing import Dict, Optional, Tuple

import torch
from fairseq.modules import MultiheadAttention
from torch import Tensor

from fairseq_entmax.functional import entmax
from fairseq_entmax.functional.mapping import entmax_dense, entmax_learned

from .adopt import adopt
from .learned_alpha import LearnedAlpha


def _renamed(function: FunctionType, name: str, **replaced: object) -> FunctionType:
    """The same function under another name: TorchScript compiles a method by its own name.

    ``replaced`` are globals that it shall see otherwise.
    """
    twin = FunctionType(
        function.__code__,
        {**function.__globals__, **replaced},
        name,
        function.__defaults__,
        function.__closure__,
    )
    twin.__annotations__ = function.__annotations__
    return twin


def default_temperature(alpha: float) -> float:
    """4 ** (alpha - 1), which is 1 at softmax.

    Where p is even over n positions, dp/dz of alpha-entmax is n ** (alpha - 1) times softmax's.
    With as large a step in z, heads are on one position, where they have no gradient, before they
    have found the right one. n = 4 undoes that as far as it was found to help
    (examples/translation/RESULTS.md).
    """
    return 4 ** (alpha - 1)


class EntmaxMultiheadAttention(MultiheadAttention):
    """Multi-head attention whose weights are alpha-entmax of the scores, with exact zeros.

    p = entmax_alpha(q k^T / (T sqrt(d)) + mask) for each head and target position; T is the
    temperature, 1 unless given. Everything else (projections, incremental state, reordering, key
    padding, add_zero_attn, quantisation noise) is fairseq's. Make one with :meth:`from_stock`.

    Source:
        Peters, Niculae, Martins (ACL 2019), section 4; Correia et al. (EMNLP 2019).

    Example::

        >>> stock = MultiheadAttention(embed_dim=4, num_heads=2)
        >>> sparse = EntmaxMultiheadAttention.from_stock(stock, alpha=1.5)
        >>> sparse.q_proj is stock.q_proj
        True
    """

    alpha: float

    @classmethod
    def from_stock(
        cls,
        attention: MultiheadAttention,
        alpha: float,
        learn_alpha: bool = False,
        temperature: Optional[float] = 1.0,
    ) -> MultiheadAttention:
        """The sparse twin of a built attention, sharing its parameters; alpha = 1 is itself.

        With ``learn_alpha`` every head has an alpha of its own, a parameter that starts at alpha.
        The scores are divided by ``temperature``, which an attention that stays itself has not;
        None is :func:`default_temperature`.

        Raises:
            ValueError: alpha < 1, or to be learned and not in (1, 2), the temperature is not a
                positive number, the attention runs in xFormers, which has only softmax, or it has
                add_bias_kv, which fairseq has in torch's fused attention only.
        """
        if not alpha >= 1:
            raise ValueError(f"attention alpha must be >= 1, got {alpha}")
        if temperature is None:
            temperature = default_temperature(alpha)
        if not 0 < temperature < math.inf:
            raise ValueError(f"--attention-temperature must be a number > 0, got {temperature}")
        if alpha == 1 and not learn_alpha and not isinstance(attention, cls):
            return attention
        if getattr(attention, "use_xformers", False):
            raise ValueError(
                f"attention alpha {alpha} needs fairseq's own attention: xFormers has only "
                "softmax. Drop the xformers_att_config option or set the alpha to 1."
            )
        if attention.bias_k is not None:
            raise ValueError(
                f"attention alpha {alpha} cannot be combined with add_bias_kv, which works in "
                "torch's fused softmax attention only: build without it or set the alpha to 1."
            )
        # the check is what sends forward into torch's fused softmax attention
        sparse = adopt(cls, attention, alpha=float(alpha), skip_embed_dim_check=True)
        sparse.scaling = attention.head_dim**-0.5 / temperature
        sparse.learned_alpha = LearnedAlpha(attention.num_heads, alpha) if learn_alpha else None
        return sparse

    def forward(
        self,
        query: Tensor,
        key: Optional[Tensor],
        value: Optional[Tensor],
        key_padding_mask: Optional[Tensor] = None,
        incremental_state: Optional[Dict[str, Dict[str, Optional[Tensor]]]] = None,
        need_weights: bool = True,
        static_kv: bool = False,
        attn_mask: Optional[Tensor] = None,
        before_softmax: bool = False,
        need_head_weights: bool = False,
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """As fairseq's: query (tgt_len, bsz, dim) -> output (tgt_len, bsz, dim), and the weights
        (bsz, tgt_len, src_len), or (heads, bsz, tgt_len, src_len) with ``need_head_weights``.
        """
        scores, v = self.scores_and_values(
            query,
            key,
            value,
            key_padding_mask,
            incremental_state,
            need_weights,
            static_kv,
            attn_mask,
            True,
        )
        assert v is not None
        if before_softmax:
            return scores, v
        tgt_len, bsz, _ = query.size()
        if torch.jit.is_scripting():
            learned = self.learned_alpha
            if learned is not None:
                probs = learned.entmax_dense(scores)
            else:
                probs = entmax_dense(scores, self.alpha)
        else:
            probs = self.sparse_weights(scores)
        attn = self._weighted_sum(self.dropout_module(probs), v)
        attn = attn.transpose(0, 1).contiguous().view(tgt_len, bsz, self.embed_dim)
        attn = self.out_proj(attn)
        weights: Optional[Tensor] = None
        if need_weights or need_head_weights:
            weights = probs.view(bsz, self.num_heads, tgt_len, scores.size(2)).transpose(1, 0)
            if not need_head_weights:
                weights = weights.mean(dim=0)
        return attn, weights

    @torch.jit.unused
    def sparse_weights(self, scores: Tensor) -> Tensor:
        """The attention weights, scores (bsz * heads, tgt_len, src_len) -> the same shape."""
        if self.learned_alpha is None:
            return entmax(scores, self.alpha)
        by_head = scores.unflatten(0, (-1, self.num_heads))
        return entmax_learned(by_head, self.learned_alpha()[:, None, None]).flatten(0, 1)

    def _weighted_sum(self, probs: Tensor, v: Tensor) -> Tensor:
        if probs.size(0) == v.size(0):
            return torch.bmm(probs, v)
        # the hypotheses of one sentence share its keys and values: (kv_bsz, beam, heads, ...)
        kv_bsz = v.size(0) // self.num_heads
        shared = v.view(kv_bsz, 1, self.num_heads, v.size(1), v.size(2))
        by_beam = probs.view(kv_bsz, -1, self.num_heads, probs.size(1), probs.size(2))
        return torch.matmul(by_beam, shared).view(probs.size(0), probs.size(1), v.size(2))


# the parent's forward, which returns (scores, values) when asked for the state before softmax
EntmaxMultiheadAttention.scores_and_values = _renamed(
    MultiheadAttention.forward, "scores_and_values", MultiheadAttention=EntmaxMultiheadAttention
)
