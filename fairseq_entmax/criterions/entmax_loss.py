"""The Fenchel-Young criterion: trains any model whose output layer knows its alpha."""

import logging
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Tuple

import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II

from fairseq_entmax.data.unigram import target_frequencies
from fairseq_entmax.functional.loss import entmax_loss_rows
from fairseq_entmax.functional.metrics import (
    check_epsilon,
    linear_squared_norm,
    squared_norm,
)
from fairseq_entmax.functional.output_layer import linear_entmax_loss_rows, sparse_gradients_run
from fairseq_entmax.modules import learned_alphas, output_alpha_of
from fairseq_entmax.modules.output_weights import features_for_scores
from fairseq_entmax.modules.schedule import read_share

from .logs import totals
from .models import needed_output_alpha, unwrapped, wrappers
from .quality import EPSILON, EPSILON_HELP, QUALITY, log_quality, quality_sums

logger = logging.getLogger(__name__)
_ALPHA = "alpha."  # what the names of logged learned alphas begin with
_LOGGED = (
    *("loss", "sample_size", "support_size", "gold_in_support"),
    *("token_correct", "token_total", "n_correct", "total"),
)


@dataclass
class EntmaxLossConfig(FairseqDataclass):
    """The flags of ``--criterion entmax_loss``."""

    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "epsilon of Fenchel-Young label smoothing, 0 means none"},
    )
    label_smoothing_prior: ChoiceEnum(["uniform", "unigram"]) = field(
        default="uniform",
        metadata={
            "help": "what label smoothing mixes in: every word alike, or by its frequency in the "
            "targets of the training data"
        },
    )
    report_accuracy: bool = field(
        default=False,
        metadata={"help": "also log token accuracy as fairseq does: accuracy, n_correct, total"},
    )
    ignore_prefix_size: int = field(
        default=0,
        metadata={"help": "ignore the first N target tokens"},
    )
    fused_output: ChoiceEnum(["auto", "off"]) = field(
        default="auto",
        metadata={
            "help": "compute output layer and loss in one step where the compiled kernels run; "
            "off: the scores of all words are written out"
        },
    )
    softmax_share: str = field(
        default="0",
        metadata={
            "help": "share S of cross-entropy in the training of a sparse output, (1 - S) L + S "
            "CE / T with T the --output-temperature; S, or FROM:TO:BEGIN:END, from one share to "
            "another between two updates. It costs what a softmax output costs"
        },
    )
    ppl_epsilon: float = field(default=EPSILON, metadata={"help": EPSILON_HELP})
    sentence_avg: bool = II("optimization.sentence_avg")


@register_criterion("entmax_loss", dataclass=EntmaxLossConfig)
class EntmaxLossCriterion(FairseqCriterion):
    """L = p.z + H_alpha(p) - z_y with the alpha of the model's output layer.

    z are the scores divided by the output's temperature T. With ``--softmax-share`` S it trains
    (1 - S) L + S CE / T, CE being the cross-entropy of the scores themselves: a word outside the
    support has a gradient of its own as long as S > 0.

    Logs, besides fairseq's own: support (mean number of words with p > 0), gold_in_support
    (share of reference tokens with p > 0) and token_accuracy (share); at validation also ppl_eps,
    js (nats) and sparsemax_score (:mod:`fairseq_entmax.functional.metrics`) and the learned alphas,
    ``alpha.LAYER.HEAD``.

    Source:
        Peters, Niculae, Martins (ACL 2019), section 3; label smoothing: Peters and Martins 2021.

    Example::

        $ fairseq-train ... --arch bart_base_entmax --criterion entmax_loss --label-smoothing 0.01
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
    ):
        super().__init__(task)
        check_epsilon(ppl_epsilon)
        self.ppl_epsilon = ppl_epsilon
        self.softmax_share = read_share("--softmax-share", str(softmax_share))
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"--label-smoothing must lie in [0, 1), got {label_smoothing}")
        if ignore_prefix_size < 0:
            raise ValueError(f"--ignore-prefix-size must be >= 0, got {ignore_prefix_size}")
        self.sentence_avg = sentence_avg
        self.label_smoothing = label_smoothing
        self.report_accuracy = report_accuracy
        self.ignore_prefix_size = ignore_prefix_size
        self.fused_output = fused_output
        self.unigram = label_smoothing_prior == "unigram"
        self._prior = None
        self._said_nothing_left = False

    def forward(self, model, sample, reduce=True):
        """Returns the loss, the sample size that normalises its gradient, and what to log."""
        needed_output_alpha(model)  # before a model of another kind fails in its own way
        output_weights = self.weights_to_fuse(model)
        net_output = self.net_output(model, sample, output_weights is not None)
        rows = self.loss_rows(model, net_output, sample, output_weights, uniform=reduce)
        loss = rows.loss.sum() if reduce else rows.loss.reshape(-1)
        n_sentences = sample["target"].size(0)
        sample_size = n_sentences if self.sentence_avg else sample["ntokens"]
        counted = self.counted_targets(model, net_output, sample) != self.padding_idx
        logging_output = {
            "loss": loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": n_sentences,
            "sample_size": sample_size,
            "support_size": rows.support_size.sum(),
            "gold_in_support": (rows.target_probs > 0).sum(),
            "token_correct": rows.correct.sum(),
            "token_total": counted.sum(),
        }
        if not model.training:
            logging_output.update(_weighted_alphas(unwrapped(model), sample_size))
            norms, n_words = self.squared_norms(model, net_output, output_weights)
            gold = rows.target_probs
            logging_output.update(quality_sums(gold, norms, counted, n_words, self.ppl_epsilon))
        if self.report_accuracy:
            logging_output["n_correct"] = logging_output["token_correct"]
            logging_output["total"] = logging_output["token_total"]
        return loss, sample_size, logging_output

    def net_output(self, model, sample, features_only=False):
        """What the model returns; with ``features_only``, features stand where scores would."""
        if not features_only:
            return model(**sample["net_input"])
        with features_for_scores(unwrapped(model).decoder) as asked:
            net_output = model(**sample["net_input"])
        if len(asked) != 1:
            raise ValueError(
                f"the fused output layer needs a model that scores words once in a step, "
                f"{type(unwrapped(model)).__name__} did {len(asked)} times: use --fused-output off"
            )
        return net_output

    def weights_to_fuse(self, model):
        """Weight and bias of the output layer if its loss is to be computed from the features."""
        decoder = getattr(unwrapped(model), "decoder", None)
        output_weights = getattr(decoder, "output_weights", lambda: None)()
        if self.fused_output == "off" or output_weights is None or output_alpha_of(decoder) == 1:
            return None
        # a weight used outside of forward confuses wrappers that watch or shard parameters
        watched = any(getattr(m, "find_unused_parameters", False) for m in wrappers(model))
        sharded = any("FullySharded" in type(m).__name__ for m in wrappers(model))
        fused = sparse_gradients_run(output_weights[0]) and not watched and not sharded
        return output_weights if fused else None

    def loss_rows(self, model, net_output, sample, output_weights=None, uniform=False):
        """The loss and statistics of every target position, (bsz, tgt_len)."""
        alpha, temperature = _exponent(model)
        outputs = net_output[0][:, self.ignore_prefix_size :]
        target = self.counted_targets(model, net_output, sample)
        options = {
            "ignore_index": self.padding_idx,
            "label_smoothing": self.label_smoothing,
            "smoothing_probs": self.smoothing_probs(outputs.device),
        }
        divided, weight, bias = _divided(outputs, output_weights, temperature)
        if weight is None:
            rows = entmax_loss_rows(divided, target, alpha, **options)
        else:
            rows = linear_entmax_loss_rows(
                divided, weight, target, alpha, bias=bias, uniform=uniform, **options
            )
        decoder = getattr(unwrapped(model), "decoder", None)
        share = self.softmax_share.at(getattr(decoder, "updates_done", 0))
        if share == 0 or alpha == 1 or not model.training:
            return rows
        scores = outputs if output_weights is None else F.linear(outputs, *output_weights)
        cross_entropy = entmax_loss_rows(scores, target, 1.0, **options).loss / temperature
        return rows._replace(loss=(1 - share) * rows.loss + share * cross_entropy)

    def squared_norms(self, model, net_output, output_weights=None):
        """|p|^2 at every target position, (bsz, tgt_len), and the number of words."""
        alpha, temperature = _exponent(model)
        outputs = net_output[0][:, self.ignore_prefix_size :]
        divided, weight, bias = _divided(outputs, output_weights, temperature)
        if weight is None:
            return squared_norm(divided, alpha), divided.size(-1)
        return linear_squared_norm(divided, weight, alpha, bias), len(weight)

    def smoothing_probs(self, device):
        """The frequencies of unigram label smoothing, counted when first asked for, else None."""
        if self.unigram and self.label_smoothing and self._prior is None:
            self._prior = target_frequencies(self.task).to(device)
        return self._prior

    def counted_targets(self, model, net_output, sample):
        """The targets behind the ignored prefix; it is said once if nothing is behind it."""
        targets = model.get_targets(sample, net_output)
        if 0 < targets.size(1) <= self.ignore_prefix_size and not self._said_nothing_left:
            self._said_nothing_left = True
            said = "--ignore-prefix-size %d leaves nothing to learn of a batch of length %d"
            logger.warning(said, self.ignore_prefix_size, targets.size(1))
        return targets[:, self.ignore_prefix_size :]

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Aggregate what all workers logged."""
        names = logging_outputs[0] if logging_outputs else ()
        alphas = [name for name in names if name.startswith(_ALPHA)]
        sums = totals(logging_outputs, (*_LOGGED, *QUALITY, *alphas))
        # fairseq reports every loss in base 2: at alpha = 1 this is the stock twin's figure
        metrics.log_scalar(
            "loss", sums["loss"] / sums["sample_size"] / math.log(2), sums["sample_size"], round=3
        )
        for name in alphas:
            mean = sums[name] / sums["sample_size"]
            metrics.log_scalar(name, mean, sums["sample_size"], round=4)
        n_tokens = sums["token_total"]
        if n_tokens > 0:
            for name, key, digits in (
                ("support", "support_size", 2),
                ("gold_in_support", "gold_in_support", 4),
                ("token_accuracy", "token_correct", 4),
            ):
                metrics.log_scalar(name, sums[key] / n_tokens, n_tokens, round=digits)
            log_quality(logging_outputs, sums, n_tokens)
        if sums["total"] > 0:
            metrics.log_scalar("total", sums["total"])
            metrics.log_scalar("n_correct", sums["n_correct"])
            metrics.log_derived("accuracy", _percent_correct)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Every value above is a sum over tokens or sentences."""
        return True


def _exponent(model: Any) -> Tuple[float, float]:
    """alpha and the temperature of a model's output; softmax has none."""
    alpha = needed_output_alpha(model)
    decoder = getattr(unwrapped(model), "decoder", None)
    return alpha, getattr(decoder, "output_temperature", 1.0) if alpha > 1 else 1.0


def _divided(outputs: Any, output_weights: Any, temperature: float) -> Tuple[Any, Any, Any]:
    """Scores, or features with weight and bias, whose softmax or entmax is that of scores / T."""
    weight, bias = output_weights or (None, None)
    if temperature == 1:
        return outputs, weight, bias
    return outputs / temperature, weight, None if bias is None else bias / temperature


def _weighted_alphas(model: Any, sample_size: int) -> Dict[str, Any]:
    """Learned alphas, ``alpha.LAYER.HEAD``; times the sample size, for logs are summed."""
    return {
        f"{_ALPHA}{layer}.{head}": alpha * sample_size
        for layer, alphas in learned_alphas(model).items()
        for head, alpha in enumerate(alphas)
    }


def _percent_correct(meters: Any) -> float:
    return round(meters["n_correct"].sum * 100.0 / meters["total"].sum, 3)
