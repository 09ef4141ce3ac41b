"""Transduction of strings, validated by what the model writes, language by language."""

import json
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch
from fairseq import utils
from fairseq.logging import metrics
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch import Tensor

from fairseq_entmax.data import spelling
from fairseq_entmax.data.symbols import is_language, language_of
from fairseq_entmax.scoring.counts import COLUMNS, count, is_segmented, macro, rates

_COUNTS = "_transduction_counts"
_UNKNOWN = "<<unk>>"  # of a reference: no answer has it
_OF_MORPHEMES = ("precision", "recall", "f1")
_DIGITS = {"levenshtein": 4}  # all others are percentages


@dataclass
class TransductionConfig(TranslationConfig):
    eval_transduction: bool = field(
        default=False,
        metadata={
            "help": "validate by decoding: accuracy, wer, per, cer, levenshtein and, where the "
            "dictionary has the border @@ of morphemes, precision, recall and f1; each the mean "
            "over languages"
        },
    )
    eval_transduction_args: str = field(
        default='{"beam": 1, "max_len_a": 2, "max_len_b": 20}',
        metadata={"help": "generation args of --eval-transduction, as JSON string"},
    )
    eval_transduction_languages: bool = field(
        default=False, metadata={"help": "also log each metric of each language: wer_LANGUAGE"}
    )


@register_task("transduction", dataclass=TransductionConfig)
class TransductionTask(TranslationTask):
    """``translation`` with ``--eval-transduction``; the models themselves need nothing of it.

    A word belongs to the language whose symbol ``<lang:NAME>`` is in its source; words without one
    are a group of their own. ``spelling.json`` in the data folder says how subwords are read.
    """

    cfg: TransductionConfig
    flags = "eval_transduction"  # and those that begin with it
    logged = ("accuracy", "wer", "per", "cer", "levenshtein", *_OF_MORPHEMES)

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        symbols = [i for i in range(len(src_dict)) if is_language(src_dict[i])]
        self.languages = ["none", *(language_of(src_dict[i]) for i in symbols)]
        self.language_of_symbol = torch.zeros(len(src_dict), dtype=torch.long)
        self.language_of_symbol[symbols] = torch.arange(1, len(symbols) + 1)
        self.spelling = _spelling(cfg.data)
        written = [symbol for i in range(len(tgt_dict)) for symbol in self._symbols([tgt_dict[i]])]
        self.segmented = is_segmented(written)

    def flag(self, name: str = "") -> Any:
        """The value of ``--eval-transduction`` or, with a name, of ``--eval-transduction-NAME``."""
        return getattr(self.cfg, f"{self.flags}_{name}" if name else self.flags)

    def build_model(self, cfg, from_checkpoint=False):
        model = super().build_model(cfg, from_checkpoint)
        if self.flag():
            options = Namespace(**json.loads(self.flag("args")))
            self.transduction_generator = self.build_generator([model], options)
        return model

    def valid_step(self, sample, model, criterion):
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        if self.flag():
            logging_output[_COUNTS] = self.count(sample, model)
        return loss, sample_size, logging_output

    def count(self, sample: Dict[str, Any], model: Any) -> Tensor:
        """The sums of :func:`scoring.counts.count` for each language, (languages, columns)."""
        answers = self.inference_step(self.transduction_generator, [model], sample)
        targets = sample["target"]
        table = self.language_of_symbol.to(targets.device)
        languages = table[sample["net_input"]["src_tokens"]].amax(dim=1)
        counts = torch.zeros(len(self.languages), len(COLUMNS), dtype=torch.long)
        for language, target, answer in zip(languages.tolist(), targets, answers):
            reference = self.word(target, unknown=_UNKNOWN)
            row = count(reference, self.word(answer[0]["tokens"]), self.segmented)
            counts[language] += torch.tensor(row)
        return counts.to(targets.device)

    def word(self, tokens: Tensor, unknown: str = "<unk>") -> List[str]:
        """The symbols of a target."""
        words, special = self.tgt_dict, (self.tgt_dict.pad(), self.tgt_dict.eos())
        kept = [token for token in tokens.tolist() if token not in special]
        return self._symbols([unknown if t == words.unk() else words[t] for t in kept])

    def _symbols(self, tokens: List[str]) -> List[str]:
        return self.spelling.target_symbols(tokens) if self.spelling else tokens

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        counts = [log[_COUNTS] for log in logging_outputs if _COUNTS in log]
        if not counts:
            return
        # a meter adds arrays up over the batches
        metrics.log_scalar(_COUNTS, sum(counts).cpu().numpy().astype(np.float64))
        for name in self.logged:
            if name in _OF_MORPHEMES and not self.segmented:
                continue
            metrics.log_derived(name, _macro(name))
            if self.flag("languages"):
                for i, language in enumerate(self.languages[1:], 1):
                    metrics.log_derived(f"{name}_{language}", _of_language(name, i))


def _spelling(data: Any) -> Any:
    """How the data folder spells, None where it does not say."""
    folder = Path(utils.split_paths(data)[0]) if data else None
    if folder is None or not (folder / spelling.FILE).is_file():
        return None
    return spelling.Spelling.load(folder)


def _macro(name: str) -> Any:
    return lambda meters: round(macro(meters[_COUNTS].sum)[name], _DIGITS.get(name, 2))


def _of_language(name: str, i: int) -> Any:
    return lambda meters: round(float(rates(meters[_COUNTS].sum[i])[name]), _DIGITS.get(name, 2))
