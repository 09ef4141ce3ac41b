"""Inflection of lemmas into forms: the transduction whose flags and metrics came first."""

from dataclasses import dataclass, field

from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig

from .transduction import TransductionTask


@dataclass
class InflectionConfig(TranslationConfig):
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
class InflectionTask(TransductionTask):
    """``transduction`` under the names of ``--eval-inflection``."""

    cfg: InflectionConfig
    flags = "eval_inflection"
    logged = ("accuracy", "levenshtein")
