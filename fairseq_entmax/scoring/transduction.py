"""``fairseq-generate --scoring transduction``: every metric, with bootstrap intervals."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np
from fairseq.dataclass import FairseqDataclass
from fairseq.scoring import BaseScorer, register_scorer

from fairseq_entmax.data.spelling import Spelling

from .counts import RESAMPLES, count, intervals, is_segmented, rates


@dataclass
class TransductionScorerConfig(FairseqDataclass):
    transduction_spelling: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder with spelling.json, by which subwords are read as symbols again; "
            "without it words are the symbols"
        },
    )
    transduction_resamples: int = field(
        default=RESAMPLES, metadata={"help": "resamples of the intervals; 0: no intervals"}
    )
    transduction_seed: int = field(default=0, metadata={"help": "seed of the resamples"})


@register_scorer("transduction", dataclass=TransductionScorerConfig)
class TransductionScorer(BaseScorer):
    """Over all words: the generator shows a scorer no sources, so no languages.

    Example::

        >>> scorer = TransductionScorer()
        >>> scorer.add_string("H ä u s e r", "H a u s e r")
        >>> scorer.result_string().split(",")[-1]  # accuracy, WER, PER and CER stand before it
        ' words: 1'
    """

    def __init__(self, cfg=None):
        super().__init__(cfg or TransductionScorerConfig())
        folder = self.cfg.transduction_spelling
        self.spelling = Spelling.load(Path(folder)) if folder else None
        self.pairs: List[Tuple[List[str], List[str]]] = []

    def add_string(self, ref, pred):
        pair = ref.split(), pred.split()
        if self.spelling is not None:
            pair = tuple(map(self.spelling.target_symbols, pair))
        self.pairs.append(pair)

    def rows(self) -> np.ndarray:
        """Counts of each answer, (words, columns); of morphemes if a reference has a border."""
        segmented = any(is_segmented(reference) for reference, _ in self.pairs)
        return np.array([count(*pair, segmented) for pair in self.pairs])

    def score(self) -> float:
        """Exact match in percent, 0 without words."""
        same = sum(reference == answer for reference, answer in self.pairs)
        return 100.0 * same / max(len(self.pairs), 1)

    def result_string(self) -> str:
        """Each metric with its 95% interval, and the number of words."""
        if not self.pairs:
            return "words: 0"
        rows = self.rows()
        n = self.cfg.transduction_resamples
        around = intervals([rows], n, self.cfg.transduction_seed) if n else {}
        texts = [
            f"{name}: {value:.2f}"
            + ("[{:.2f}, {:.2f}]".format(*around[name]) if name in around else "")
            for name, value in rates(rows.sum(axis=0)).items()
            if not np.isnan(value)
        ]
        return ", ".join([*texts, f"words: {len(rows)}"])
