"""fairseq's translation with the searches that exact zeros make possible."""

import atexit
import os
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, List, Optional

from fairseq.data import LanguagePairDataset
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_entmax.decoding import ExactSearch, make_sparse
from fairseq_entmax.decoding.report import SearchLog


@dataclass
class SparseTranslationConfig(TranslationConfig):
    """The flags of ``--task sparse_translation``, beside those of ``translation``."""

    search: ChoiceEnum(["beam", "exact"]) = field(
        default="beam",
        metadata={
            "help": "beam: fairseq's search, as its own flags have it; exact: the --nbest most "
            "probable strings, proven, ranked and scored by log p as with --unnormalized"
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
            "--nbest is then the largest number of strings (0: go by --nbest alone)"
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
        return ExactSearch(
            generator,
            nbest=nbest,
            mass=self.cfg.search_mass or None,
            max_expansions=self.cfg.max_expansions,
            max_memory=self.cfg.max_search_memory * 2**20,
        )

    def _open_log(self, settings: Any) -> None:
        if self.log is None:
            cfg = self.cfg
            lines = cfg.certificates or str(cfg.search) == "exact"
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
    if cfg.search_mass and str(cfg.search) != "exact":
        raise ValueError(f"--search-mass {cfg.search_mass} needs --search exact")
    if cfg.eval_bleu and str(cfg.search) != "beam":
        raise ValueError(
            "--search is for decoding commands; --eval-bleu takes its search from --eval-bleu-args"
        )


def check_search_args(args: Any) -> None:
    """Raises a ValueError for what cannot be combined with certificates or exact search."""
    if getattr(args, "score_reference", False):
        raise ValueError("--score-reference searches nothing: drop the search options")
