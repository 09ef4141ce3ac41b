"""Translation of lemmas into forms, validated by what the model writes, language by language."""

import json
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from fairseq.logging import metrics
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch import Tensor

from fairseq_entmax.data.symbols import is_language, language_of
from fairseq_entmax.scoring import levenshtein

_COUNTS = "_inflection_counts"
_WORDS, _CORRECT, _DISTANCE = range(3)


@dataclass
class InflectionConfig(TranslationConfig):
    """The flags of ``--task inflection``: those of ``translation``, and three of its own."""

    eval_inflection: bool = field(
        default=False,
        metadata={
            "help": "validate by decoding: accuracy (exact match, percent) and levenshtein, each "
            "the mean over languages"
        },
    )
    eval_inflection_args: str = field(
        default='{"beam": 1, "max_len_a": 2, "max_len_b": 20}',
        metadata={"help": "generation args of --eval-inflection, as JSON string"},
    )
    eval_inflection_languages: bool = field(
        default=False,
        metadata={"help": "also log accuracy_LANGUAGE and levenshtein_LANGUAGE"},
    )


@register_task("inflection", dataclass=InflectionConfig)
class InflectionTask(TranslationTask):
    """``translation`` with ``--eval-inflection``; the models themselves need nothing of it.

    A word belongs to the language whose symbol ``<lang:NAME>`` is in its source; words without
    one are a group of their own.

    Example::

        $ fairseq-train ... --task inflection --eval-inflection --arch lstm_entmax
    """

    cfg: InflectionConfig

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        symbols = [i for i in range(len(src_dict)) if is_language(src_dict[i])]
        self.languages = ["none", *(language_of(src_dict[i]) for i in symbols)]
        self.language_of_symbol = torch.zeros(len(src_dict), dtype=torch.long)
        self.language_of_symbol[symbols] = torch.arange(1, len(symbols) + 1)

    def build_model(self, cfg, from_checkpoint=False):
        """fairseq's, and the generator that validation decodes with."""
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.eval_inflection:
            options = Namespace(**json.loads(self.cfg.eval_inflection_args))
            self.inflection_generator = self.build_generator([model], options)
        return model

    def valid_step(self, sample, model, criterion):
        """fairseq's, and what was written right, counted by language."""
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        if self.cfg.eval_inflection:
            logging_output[_COUNTS] = self.count(sample, model)
        return loss, sample_size, logging_output

    def count(self, sample: Dict[str, Any], model: Any) -> Tensor:
        """Words, correct answers and distances of each language, (languages, 3)."""
        answers = self.inference_step(self.inflection_generator, [model], sample)
        targets = sample["target"]
        table = self.language_of_symbol.to(targets.device)
        languages = table[sample["net_input"]["src_tokens"]].amax(dim=1)
        counts = torch.zeros(len(self.languages), 3, dtype=torch.long)
        for language, target, answer in zip(languages.tolist(), targets, answers):
            distance = levenshtein(self.word(answer[0]["tokens"]), self.word(target, unknown=-1))
            counts[language] += torch.tensor([1, int(distance == 0), distance])
        return counts.to(targets.device)

    def word(self, tokens: Tensor, unknown: Optional[int] = None) -> List[Optional[int]]:
        """The symbols; no answer equals an unknown one of a reference."""
        replaced = {self.tgt_dict.unk(): unknown}
        special = (self.tgt_dict.pad(), self.tgt_dict.eos())
        return [replaced.get(token, token) for token in tokens.tolist() if token not in special]

    def reduce_metrics(self, logging_outputs, criterion):
        """fairseq's, and accuracy and levenshtein, each the mean over languages."""
        super().reduce_metrics(logging_outputs, criterion)
        counts = [log[_COUNTS] for log in logging_outputs if _COUNTS in log]
        if not counts:
            return
        # a meter adds arrays up over the batches
        metrics.log_scalar(_COUNTS, sum(counts).cpu().numpy().astype(np.float64))
        metrics.log_derived("accuracy", _accuracy)
        metrics.log_derived("levenshtein", _levenshtein)
        if self.cfg.eval_inflection_languages:
            for i, language in enumerate(self.languages[1:], 1):
                self._log_language(i, language)

    def _log_language(self, i: int, language: str) -> None:
        def accuracy(meters: Any) -> float:
            return round(float(100 * _means(meters, _CORRECT)[i]), 2)

        def distance(meters: Any) -> float:
            return round(float(_means(meters, _DISTANCE)[i]), 4)

        metrics.log_derived(f"accuracy_{language}", accuracy)
        metrics.log_derived(f"levenshtein_{language}", distance)


def _means(meters: Any, column: int) -> np.ndarray:
    """The mean of a column for each language, NaN for those without words."""
    counts = meters[_COUNTS].sum
    with np.errstate(invalid="ignore"):
        return counts[:, column] / counts[:, _WORDS]


def _accuracy(meters: Any) -> float:
    return round(float(100 * np.nanmean(_means(meters, _CORRECT))), 2)


def _levenshtein(meters: Any) -> float:
    return round(float(np.nanmean(_means(meters, _DISTANCE))), 4)
