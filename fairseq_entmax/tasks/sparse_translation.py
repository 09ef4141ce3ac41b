"""fairseq's translation with the searches that exact zeros make possible."""

import atexit
import os
import sys
from argparse import Namespace
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, List, Optional, Tuple

from fairseq.data import LanguagePairDataset
from fairseq.data.data_utils import post_process
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import OmegaConf

from fairseq_entmax.decoding import ExactSearch, MinimumBayesRisk, make_sparse
from fairseq_entmax.decoding.report import SearchLog
from fairseq_entmax.scoring.utility import UTILITIES, utility

_MBR_MASS = 0.99  # where --search-mass says nothing


@dataclass
class SparseTranslationConfig(TranslationConfig):
    """The flags of ``--task sparse_translation``, beside those of ``translation``."""

    search: ChoiceEnum(["beam", "exact", "mbr"]) = field(
        default="beam",
        metadata={
            "help": "beam: fairseq's search, as its own flags have it; exact: the --nbest most "
            "probable strings, proven, ranked and scored by log p as with --unnormalized; mbr: "
            "the string of the highest expected --utility"
        },
    )
    utility: ChoiceEnum(list(UTILITIES)) = field(
        default="levenshtein",
        metadata={
            "help": "of --search mbr: minus the edit distance in symbols, chrF or BLEU of the "
            "sentence (sacrebleu), or whether it is the right string"
        },
    )
    utility_post_process: Optional[str] = field(
        default=None,
        metadata={"help": "undo subwords before --utility, as --post-process does in the output"},
    )
    max_strings: int = field(
        default=1000, metadata={"help": "--search mbr: list so many strings at most"}
    )
    samples: int = field(
        default=64,
        metadata={
            "help": "--search mbr: where the list falls short of --search-mass (then 0.99), so "
            "many samples stand for the rest"
        },
    )
    certificates: bool = field(
        default=False,
        metadata={"help": "print what is proven about each sentence (always with --search exact)"},
    )
    sparse_step: ChoiceEnum(["auto", "off"]) = field(
        default="auto",
        metadata={
            "help": "auto: beam search asks a sparse output layer for the best words of its "
            "support only, where nothing needs all scores; off: always for all words"
        },
    )
    search_report: Optional[str] = field(
        default=None, metadata={"help": "write the summary of the certificates there, as JSON"}
    )
    search_tree: Optional[str] = field(
        default=None,
        metadata={
            "help": "write the strings of each sentence there, as a tree; a line of JSON each"
        },
    )
    search_mass: float = field(
        default=0.0,
        metadata={
            "help": "exact search: stop when the strings found have this probability, in (0, 1]; "
            "--nbest (mbr: --max-strings) is then the largest number of strings (0: go by --nbest "
            "alone; mbr: 0.99)"
        },
    )
    max_expansions: int = field(
        default=10000,
        metadata={"help": "exact search: prefixes of one sentence to continue before giving up"},
    )
    max_search_memory: int = field(
        default=1024,
        metadata={
            "help": "exact search: megabytes for waiting prefixes; beyond them the least probable "
            "are given up"
        },
    )


@register_task("sparse_translation", dataclass=SparseTranslationConfig)
class SparseTranslationTask(TranslationTask):
    """``--task translation`` with certificates, exact search and enumeration.

    Training is the stock task's; so is decoding without these flags.

    Example::

        $ fairseq-generate ... --task sparse_translation --search exact --nbest 5
    """

    cfg: SparseTranslationConfig

    def __init__(self, cfg: SparseTranslationConfig, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        check_search_config(cfg)
        self.log: Optional[SearchLog] = None
        self.waiting_ids: Deque[List[int]] = deque()
        self.n_sentences = 0

    @classmethod
    def load_dictionary(cls, filename: str) -> Any:
        """fairseq's.

        Raises:
            ValueError: there is no such file.
        """
        if not os.path.isfile(filename):
            raise ValueError(
                f"there is no dictionary {filename}: name a folder that fairseq-preprocess wrote, "
                "and its languages with --source-lang and --target-lang"
            )
        return super().load_dictionary(filename)

    @property
    def searches(self) -> bool:
        """Something was asked for that the stock task does not do."""
        cfg = self.cfg
        return bool(
            cfg.certificates or cfg.search_report or cfg.search_tree or cfg.search != "beam"
        )

    def build_generator(self, models: List[Any], args: Any, *more: Any, **kwargs: Any) -> Any:
        generator = super().build_generator(models, args, *more, **kwargs)
        generator.sparse_step = str(self.cfg.sparse_step)
        if not self.searches:
            return generator
        check_search_args(args)
        nbest = getattr(args, "nbest", 1)
        self._open_log(
            {"search": str(self.cfg.search), "beam": generator.beam_size, "nbest": nbest}
        )
        if str(self.cfg.search) == "beam":
            return make_sparse(generator, certify=True)
        mbr, mass = str(self.cfg.search) == "mbr", self.cfg.search_mass or None
        exact = ExactSearch(
            generator,
            nbest=self.cfg.max_strings if mbr else nbest,
            mass=mass or _MBR_MASS if mbr else mass,
            max_expansions=self.cfg.max_expansions,
            max_memory=self.cfg.max_search_memory * 2**20,
        )
        if not mbr:
            return exact
        sampler = super().build_generator(
            models, sampling_args(args, self.cfg.samples), *more, **kwargs
        )
        chosen = utility(str(self.cfg.utility))
        return MinimumBayesRisk(exact, chosen, self._symbols, sampler, self.cfg.samples)

    def _symbols(self, tokens: List[int]) -> Tuple[str, ...]:
        """What ``--utility`` compares."""
        words = self.target_dictionary
        text = " ".join(words[token] for token in tokens)
        return tuple(post_process(text, self.cfg.utility_post_process).split())

    def _open_log(self, settings: Any) -> None:
        if self.log is None:
            cfg = self.cfg
            lines = cfg.certificates or str(cfg.search) != "beam"
            self.log = SearchLog(
                lines, cfg.search_report, cfg.search_tree, settings, self.target_dictionary
            )
            atexit.register(self._close_log)

    def _close_log(self) -> None:
        if getattr(sys, "last_value", None) is None:  # Python did not end by an error
            self.log.finish()

    def inference_step(
        self, generator: Any, models: List[Any], sample: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """fairseq's; the certificates are booked."""
        found = super().inference_step(generator, models, sample, *args, **kwargs)
        if self.log is not None:
            self.log.add(self._ids(sample), found)
        return found

    def build_dataset_for_inference(
        self, src_tokens: Any, src_lengths: Any, constraints: Any = None
    ) -> Any:
        """fairseq-interactive tells only the data set which sentence is which."""
        dataset = NumberedDataset(
            src_tokens,
            src_lengths,
            self.source_dictionary,
            tgt_dict=self.target_dictionary,
            constraints=constraints,
        )
        if self.searches:
            dataset.announce, dataset.first_id = self.waiting_ids.append, self.n_sentences
            self.n_sentences += len(dataset)
        return dataset

    def _ids(self, sample: Any) -> List[int]:
        return self.waiting_ids.popleft() if self.waiting_ids else sample["id"].tolist()


class NumberedDataset(LanguagePairDataset):
    """Announces the numbers of the sentences in each batch, counted over all inputs of a run."""

    announce: Optional[Callable[[List[int]], None]] = None
    first_id = 0

    def collater(self, samples: Any, *args: Any, **kwargs: Any) -> Any:
        """fairseq's; the numbers of its sentences are announced."""
        batch = super().collater(samples, *args, **kwargs)
        if self.announce is not None and "id" in batch:
            self.announce([self.first_id + i for i in batch["id"].tolist()])
        return batch


def check_search_config(cfg: SparseTranslationConfig) -> None:
    """Raises a ValueError for search options out of range, or given to a training."""
    if cfg.max_expansions < 1 or cfg.max_search_memory < 1:
        raise ValueError(
            "--max-expansions and --max-search-memory must be at least 1, got "
            f"{cfg.max_expansions} and {cfg.max_search_memory}"
        )
    if not 0 <= cfg.search_mass <= 1:
        raise ValueError(f"--search-mass must be in (0, 1], or 0 for none, got {cfg.search_mass}")
    if cfg.max_strings < 1 or cfg.samples < 1:
        raise ValueError(
            f"--max-strings and --samples must be at least 1, got {cfg.max_strings} and "
            f"{cfg.samples}"
        )
    if cfg.search_mass and str(cfg.search) == "beam":
        raise ValueError(f"--search-mass {cfg.search_mass} needs --search exact or mbr")
    if cfg.eval_bleu and str(cfg.search) != "beam":
        raise ValueError(
            "--search is for decoding commands; --eval-bleu takes its search from --eval-bleu-args"
        )


def sampling_args(args: Any, samples: int) -> Namespace:
    """The same generation options, for so many draws from the model itself."""
    container = OmegaConf.to_container(args) if OmegaConf.is_config(args) else vars(args)
    drawn = {"sampling": True, "sampling_topk": -1, "sampling_topp": -1.0}
    return Namespace(**{**container, **drawn, "beam": samples, "nbest": samples})


def check_search_args(args: Any) -> None:
    """Raises a ValueError for what cannot be combined with certificates or exact search."""
    if getattr(args, "score_reference", False):
        raise ValueError("--score-reference searches nothing: drop the search options")
