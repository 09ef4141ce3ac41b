"""The Fenchel-Young criterion of masked language models."""

import math
from typing import Any, Dict, List

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics

from fairseq_entmax.functional.loss import entmax_loss_rows
from fairseq_entmax.functional.metrics import squared_norm
from fairseq_entmax.modules.masked_output import masked_output_of

from .logs import totals
from .models import unwrapped
from .quality import EPSILON, QUALITY, log_quality, quality_sums

_LOGGED = ("loss", "sample_size", "support_size", "gold_in_support")


@register_criterion("masked_entmax_loss")
class MaskedEntmaxLossCriterion(FairseqCriterion):
    """L = p.z + H_alpha(p) - z_y over the masked words, as fairseq's ``masked_lm``.

    Logs the loss, and the mean support of the masked words and how many references are in it; at
    validation also ppl_eps (with epsilon 1e-6), js and sparsemax_score, as ``entmax_loss`` does.

    Source:
        Peters, Niculae, Martins (ACL 2019), section 3.

    Example::

        $ fairseq-train ... --task masked_lm --arch roberta_entmax --criterion masked_entmax_loss
    """

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True):
        """Returns the loss, the number of masked words, and what to log."""
        masked = sample["target"].ne(self.padding_idx)
        # where nothing is masked fairseq scores all words, and none counts
        sample_size = int(masked.sum())
        chosen = masked if sample_size else None
        scores = model(**sample["net_input"], masked_tokens=chosen)[0]
        targets = unwrapped(model).get_targets(sample, [scores])
        if chosen is not None:
            targets = targets[chosen]
        scores = scores.view(-1, scores.size(-1))
        alpha = self.output_alpha(model)
        rows = entmax_loss_rows(scores, targets.view(-1), alpha, ignore_index=self.padding_idx)
        loss = rows.loss.sum() if reduce else rows.loss
        logging_output = {
            "loss": loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": sample_size,
            "support_size": rows.support_size.sum(),
            "gold_in_support": (rows.target_probs > 0).sum(),
        }
        if not model.training:
            norms, counted = squared_norm(scores, alpha), targets.view(-1) != self.padding_idx
            gold, n_words = rows.target_probs, scores.size(-1)
            logging_output.update(quality_sums(gold, norms, counted, n_words, EPSILON))
        return loss, sample_size, logging_output

    def output_alpha(self, model: Any) -> float:
        """The alpha of the model's scores.

        Raises:
            ValueError: it knows none, or is no masked language model.
        """
        encoder = masked_output_of(unwrapped(model))
        alpha = getattr(encoder, "output_alpha", None)
        if alpha is None:
            raise ValueError(
                "--criterion masked_entmax_loss needs a sparse masked language model such as "
                f"`--arch roberta_entmax_base`, got {type(unwrapped(model)).__name__}"
            )
        return alpha

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Aggregate what all workers logged."""
        sums = totals(logging_outputs, (*_LOGGED, *QUALITY))
        n_masked = sums["sample_size"]
        if n_masked == 0:
            return
        metrics.log_scalar("loss", sums["loss"] / n_masked / math.log(2), n_masked, round=3)
        for name, key, digits in (
            ("support", "support_size", 2),
            ("gold_in_support", "gold_in_support", 4),
        ):
            metrics.log_scalar(name, sums[key] / n_masked, n_masked, round=digits)
        log_quality(logging_outputs, sums, n_masked)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Every value above is a sum over words or sentences."""
        return True
