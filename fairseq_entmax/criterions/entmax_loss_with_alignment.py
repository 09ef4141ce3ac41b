"""The Fenchel-Young criterion with supervised attention heads, for ``transformer_align``."""

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from fairseq.criterions import register_criterion
from fairseq.logging import metrics
from torch import Tensor, nn

from fairseq_entmax.functional import entmax_loss
from fairseq_entmax.modules import EntmaxMultiheadAttention

from .entmax_loss import EntmaxLossConfig, EntmaxLossCriterion
from .logs import totals
from .models import unwrapped
from .quality import EPSILON


@dataclass
class EntmaxLossWithAlignmentConfig(EntmaxLossConfig):
    """Those of ``entmax_loss``, and the weight of the alignments."""

    alignment_lambda: float = field(default=0.05, metadata={"help": "weight of the alignment loss"})


@register_criterion("entmax_loss_with_alignment", dataclass=EntmaxLossWithAlignmentConfig)
class EntmaxLossWithAlignmentCriterion(EntmaxLossCriterion):
    """``entmax_loss`` + lambda * the Fenchel-Young loss of the supervised heads' own scores.

    fairseq's ``label_smoothed_cross_entropy_with_alignment`` takes -log of the attention weight,
    infinite and without a gradient where sparse attention gives 0. L(z; j) = p.z + H_alpha(p) - z_j
    of the scores z has one everywhere; it is the mean over the heads (``--alignment-heads``). At
    attention alpha 1 the loss is fairseq's own.

    Logs, besides what ``entmax_loss`` does, alignment_loss.

    Source:
        Garg et al. (EMNLP 2019); Peters, Niculae, Martins (ACL 2019), section 3.
    """

    def __init__(
        self,
        task,
        sentence_avg,
        label_smoothing=0.0,
        report_accuracy=False,
        ignore_prefix_size=0,
        fused_output="auto",
        label_smoothing_prior="uniform",
        softmax_share="0",
        ppl_epsilon=EPSILON,
        alignment_lambda=0.05,
    ):
        super().__init__(
            task,
            sentence_avg,
            label_smoothing,
            report_accuracy,
            ignore_prefix_size,
            fused_output,
            label_smoothing_prior,
            softmax_share,
            ppl_epsilon,
        )
        self.alignment_lambda = alignment_lambda

    def forward(self, model, sample, reduce=True):
        """Returns the loss, the sample size that normalises its gradient, and what to log."""
        loss, sample_size, logging_output = super().forward(model, sample, reduce)
        pairs = sample.get("alignments")
        if pairs is not None and len(pairs) > 0:
            alignment_loss = self.alignment_loss(unwrapped(model), sample)
            logging_output["alignment_loss"] = alignment_loss.data
            loss = loss + self.alignment_lambda * alignment_loss
        return loss, sample_size, logging_output

    def net_output(self, model, sample, features_only=False):
        """As of ``entmax_loss``; keeps what the supervised attention normalised."""
        attention = supervised_attention(unwrapped(model))
        self._scores: Optional[Tensor] = None
        if not isinstance(attention, EntmaxMultiheadAttention):
            net_output = super().net_output(model, sample, features_only)
            self._probs = net_output[1]["attn"][0]
            return net_output

        def kept(scores: Tensor) -> Tensor:
            self._scores = scores
            return EntmaxMultiheadAttention.sparse_weights(attention, scores)

        attention.__dict__["sparse_weights"] = kept
        try:
            return super().net_output(model, sample, features_only)
        finally:
            del attention.__dict__["sparse_weights"]

    def alignment_loss(self, model, sample) -> Tensor:
        """The sum over aligned pairs (j, t) of w_t L(z_t; j), w_t one over the pairs of word t."""
        source, target = sample["alignments"].unbind(1)  # t counts on through the batch
        weights = sample["align_weights"].float()
        if self._scores is None:
            probs = self._probs.flatten(0, 1)
            return -(probs[target, source].log() * weights).sum()
        attention = supervised_attention(model)
        bsz, tgt_len = sample["target"].shape
        by_head = self._scores.view(bsz, attention.num_heads, tgt_len, -1)
        # (bsz, heads, tgt_len, src_len) -> (heads, pairs, src_len)
        rows = by_head[:, : model.alignment_heads].transpose(0, 1).flatten(1, 2)[:, target]
        alpha = attention.alpha if attention.learned_alpha is None else attention.learned_alpha()
        if isinstance(alpha, Tensor):
            alpha = alpha[: len(rows), None, None]
        answers = source.expand(len(rows), -1)
        losses = entmax_loss(rows.float(), answers, alpha, reduction="none")
        return (losses * weights).sum() / len(rows)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Aggregate what all workers logged."""
        super().reduce_metrics(logging_outputs)
        sums = totals(logging_outputs, ("alignment_loss", "sample_size"))
        size = sums["sample_size"]
        loss = sums["alignment_loss"] / size / math.log(2)
        metrics.log_scalar("alignment_loss", loss, size, round=3)


def supervised_attention(model: Any) -> nn.Module:
    """The cross-attention that alignments supervise.

    Raises:
        ValueError: the model has none.
    """
    layer = getattr(model, "alignment_layer", None)
    if layer is None:
        raise ValueError(
            "--criterion entmax_loss_with_alignment needs a model with supervised attention, "
            f"`--arch transformer_align_entmax`, got {type(model).__name__}"
        )
    layers = model.decoder.layers
    if not -len(layers) <= layer < len(layers):
        raise ValueError(
            f"--alignment-layer {layer}: the decoder has the layers 0 to {len(layers) - 1}"
        )
    return layers[layer].encoder_attn
