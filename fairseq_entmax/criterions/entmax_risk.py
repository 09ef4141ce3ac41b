"""Minimum risk training on the list of strings that the model holds for possible."""

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, NamedTuple

import torch
from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.data import data_utils
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

from fairseq_entmax.decoding import ExactSearch
from fairseq_entmax.scoring.utility import UTILITIES, utility

from .entmax_loss import EntmaxLossConfig, EntmaxLossCriterion
from .logs import totals
from .models import unwrapped


@dataclass
class EntmaxRiskConfig(EntmaxLossConfig):
    """The flags of ``--criterion entmax_risk``, beside those of ``entmax_loss``."""

    risk_utility: ChoiceEnum(list(UTILITIES)) = field(
        default="levenshtein", metadata={"help": "the cost of a string is what it lacks in this"}
    )
    candidates: int = field(
        default=16, metadata={"help": "strings of a sentence to list, the most probable ones"}
    )
    candidate_mass: float = field(
        default=0.99, metadata={"help": "list no more strings once they have this probability"}
    )
    candidate_expansions: int = field(
        default=100, metadata={"help": "prefixes of a sentence to continue beyond beam search"}
    )
    candidate_beam: int = field(
        default=4, metadata={"help": "width of the beam search that begins the list"}
    )
    candidate_max_len_b: int = field(
        default=20, metadata={"help": "candidates have 1.5 times the source's length and this"}
    )
    loss_weight: float = field(
        default=0.0, metadata={"help": "weight of the loss of entmax_loss, which is added"}
    )


class Candidates(NamedTuple):
    """Strings of a batch, one after another.

    Attributes:
        rows: the sentence that each belongs to, (n,).
        tokens: with EOS, of each; the reference of a sentence comes first.
        costs: of each, (n,).
        mass: probability that was listed, of each sentence.
    """

    rows: List[int]
    tokens: List[List[int]]
    costs: List[float]
    mass: List[float]


@register_criterion("entmax_risk", dataclass=EntmaxRiskConfig)
class EntmaxRiskCriterion(EntmaxLossCriterion):
    r"""The expected cost of the strings that a sentence can get, under the model.

    .. math::
        R = \sum_{c \in C} q(c) \Delta(c, y), \quad q(c) = \frac{p(c)}{\sum_{c' \in C} p(c')},
        \quad \Delta(c, y) = u(y, y) - u(c, y)

    C are the reference y and the strings that exact search lists: a sparse model has few, so that R
    is the risk itself rather than an estimate from samples. What is listed is logged as
    ``listed_mass``. Train a model with ``entmax_loss`` first, and go on from it
    (``--finetune-from-model``); ``--loss-weight`` keeps some of that loss.

    Logs, besides what ``entmax_loss`` does: risk (mean cost of a sentence), candidates and
    listed_mass (their mean number and probability).

    Source:
        Shen et al., "Minimum Risk Training for Neural Machine Translation" (ACL 2016).

    Example::

        $ fairseq-train ... --arch lstm_entmax --finetune-from-model checkpoint_best.pt \
            --criterion entmax_risk --risk-utility levenshtein
    """

    def __init__(
        self,
        task,
        sentence_avg=True,
        risk_utility="levenshtein",
        candidates=16,
        candidate_mass=0.99,
        candidate_expansions=100,
        candidate_beam=4,
        candidate_max_len_b=20,
        loss_weight=0.0,
        **loss_options,
    ):
        super().__init__(task, True, **loss_options)  # a risk belongs to a sentence
        if min(candidates, candidate_expansions, candidate_beam) < 1 or not 0 < candidate_mass <= 1:
            raise ValueError(
                "--candidates, --candidate-expansions and --candidate-beam must be at least 1 and "
                f"--candidate-mass in (0, 1], got {candidates}, {candidate_expansions}, "
                f"{candidate_beam} and {candidate_mass}"
            )
        self.utility = utility(str(risk_utility))
        self.search_options = {
            "nbest": candidates,
            "mass": candidate_mass,
            "max_expansions": candidate_expansions,
        }
        self.beam, self.max_len_b = candidate_beam, candidate_max_len_b
        self.loss_weight = loss_weight

    @classmethod
    def build_criterion(cls, cfg: Any, task: Any) -> "EntmaxRiskCriterion":
        """From the flags."""
        names = [name for name in EntmaxRiskConfig.__dataclass_fields__ if name[0] != "_"]
        return cls(task, **{name: getattr(cfg, name) for name in names})

    def forward(self, model, sample, reduce=True):
        """Returns the risk and the weighted loss, the number of sentences, and what to log."""
        loss, n_sentences, logging_output = super().forward(model, sample, reduce=True)
        found = self.list_candidates(model, sample)
        risks = self.risks(model, sample, found)
        total = risks.sum() + self.loss_weight * loss
        logging_output.update(
            loss=total.data,
            risk=risks.sum().data,
            candidates=len(found.rows) - n_sentences,
            listed_mass=math.fsum(found.mass),
        )
        return total, n_sentences, logging_output

    def list_candidates(self, model: Any, sample: Dict[str, Any]) -> Candidates:
        """The references and what exact search lists, without dropout."""
        inner = unwrapped(model)
        if not hasattr(inner, "encoder"):
            raise ValueError(
                "--criterion entmax_risk needs a model with encoder and decoder, got "
                f"{type(inner).__name__}"
            )
        training = inner.training
        try:
            found = self._search(inner).generate([inner], sample)
        finally:
            inner.train(training)
        targets = [utils.strip_pad(t, self.padding_idx).tolist() for t in sample["target"]]
        rows, strings = [], []
        for row, hypotheses in enumerate(found):  # in the order of the batch, which LSTMs expect
            listed = [h["tokens"].tolist() for h in hypotheses if h["score"] > -math.inf]
            others = [tokens for tokens in listed if tokens != targets[row]]
            rows += [row] * (1 + len(others))
            strings += [targets[row], *others]
        costs = [self._cost(string, targets[row]) for row, string in zip(rows, strings)]
        return Candidates(rows, strings, costs, [h[0]["certificate"].mass for h in found])

    def _search(self, model: Any) -> ExactSearch:
        words = self.task.target_dictionary
        beam = SequenceGenerator(
            [model], words, beam_size=self.beam, max_len_a=1.5, max_len_b=self.max_len_b
        )
        return ExactSearch(beam, **self.search_options)

    def _cost(self, string: List[int], right: List[int]) -> float:
        answer, reference = tuple(string[:-1]), tuple(right[:-1])
        words = self.task.target_dictionary
        symbols = [tuple(words[token] for token in tokens) for tokens in (answer, reference)]
        return self.utility(symbols[1], symbols[1]) - self.utility(*symbols)

    def risks(self, model: Any, sample: Dict[str, Any], found: Candidates) -> Tensor:
        """R of each sentence, (bsz,), in float64; 0 where every candidate has p = 0."""
        probs = self.string_probs(model, sample, found)
        rows = torch.tensor(found.rows, device=probs.device)
        costs = torch.tensor(found.costs, dtype=probs.dtype, device=probs.device)
        zeros = probs.new_zeros(len(found.mass))
        total = zeros.index_add(0, rows, probs)
        return zeros.index_add(0, rows, probs * costs) / total.masked_fill(total == 0, 1.0)

    def string_probs(self, model: Any, sample: Dict[str, Any], found: Candidates) -> Tensor:
        """p of each candidate, (n,) in float64: a product of probabilities, which has a gradient
        also where one of them is 0.
        """
        device = sample["target"].device
        strings = [torch.tensor(tokens) for tokens in found.tokens]
        eos = self.task.target_dictionary.eos()
        target, previous = (
            data_utils.collate_tokens(
                strings, self.padding_idx, eos, False, move_eos_to_beginning=first
            ).to(device)
            for first in (False, True)
        )
        rows = torch.tensor(found.rows, device=device)
        bsz = sample["target"].size(0)
        inputs = {
            name: value[rows] if isinstance(value, Tensor) and len(value) == bsz else value
            for name, value in sample["net_input"].items()
        }
        net_output = model(**{**inputs, "prev_output_tokens": previous})
        probs = unwrapped(model).get_normalized_probs(net_output, log_probs=False)
        chosen = probs.gather(2, target.unsqueeze(2)).squeeze(2).double()
        return chosen.masked_fill(target == self.padding_idx, 1.0).prod(1)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Aggregate what all workers logged."""
        super().reduce_metrics(logging_outputs)
        names = ("risk", "candidates", "listed_mass")
        sums = totals(logging_outputs, ("nsentences", *names))
        n = sums["nsentences"]
        for name in names:
            metrics.log_scalar(name, sums[name] / max(n, 1), n, round=4)
