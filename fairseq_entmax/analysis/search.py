"""Numbers about the search in trained models: how often it is exact, and what it misses.

One row for each model and beam, with log p as the score and the empty string allowed, so that the
rows of a sparse model and its softmax twin can be compared.
"""

import argparse
import math
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import torch
from fairseq import checkpoint_utils, utils
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_entmax.decoding import ExactSearch, make_sparse
from fairseq_entmax.decoding.report import summary
from fairseq_entmax.modules import output_alpha_of

Row = Dict[str, Any]
Hypotheses = List[Dict[str, Any]]

COLUMNS = {
    "model": "model",
    "beam": "beam",
    "accuracy": "accuracy",
    "optimum": "proven",
    "complete": "complete",
    "search_errors": "errors",
    "empty": "empty p>0",
    "empty_wins": "empty wins",
    "mass": "mass",
    "support": "support",
    "strings": "strings",
    "unsolved": "unsolved",
}


class Reference(NamedTuple):
    """The best that exact search found for a sentence; ``strings`` with p > 0, inf if too many."""

    log_prob: float
    proven: bool
    strings: float


class Inputs:
    """The sentences of one data set, in batches.

    Args:
        data: a folder that fairseq-preprocess wrote.
        sentences: take that many at most, the first ones of the subset.
    """

    def __init__(self, data: str, subset: str, languages: List[str], sentences: int, cpu: bool):
        config = TranslationConfig(data=data)
        # what is otherwise filled in from other groups of fairseq's configuration
        config.dataset_impl, config.train_subset, config.required_seq_len_multiple = None, "", 1
        if languages:
            config.source_lang, config.target_lang = languages
        self.task = TranslationTask.setup_task(config)
        self.task.load_dataset(subset)
        self.dataset, self.sentences = self.task.dataset(subset), sentences
        self.cuda = torch.cuda.is_available() and not cpu

    def batches(self, size: int) -> Iterator[Row]:
        """Batches of ``size`` sentences as fairseq collates them, on the device of the models."""
        n = min(self.sentences, len(self.dataset))
        for start in range(0, n, size):
            rows = [self.dataset[i] for i in range(start, min(start + size, n))]
            batch = self.dataset.collater(rows)
            yield utils.move_to_cuda(batch) if self.cuda else batch

    def models(self, paths: str) -> List[Any]:
        """The models of one checkpoint, or of an ensemble ``a.pt:b.pt``, ready to decode."""
        models, _ = checkpoint_utils.load_model_ensemble(utils.split_paths(paths), task=self.task)
        for model in models:
            model.eval()
            if self.cuda:
                model.cuda()
        return models


def analyse(inputs: Inputs, models: List[Any], beams: List[int], options: Any) -> List[Row]:
    """One row for each beam.

    Returns:
        Rows with what :func:`fairseq_entmax.decoding.report.summary` has, and ``beam``,
        ``accuracy`` (the best hypothesis is the reference), ``search_errors`` (share of the
        sentences whose optimum is known where the beam's best is less probable), ``empty_wins``
        (share where the empty string is more probable than the best other string of the beam),
        ``strings`` (median number of strings with p > 0; None for softmax, where it is every
        string, and where it is above ``options.strings``), ``unsolved`` (share where exact search
        ran out of ``options.max_expansions``).
    """
    exact = search(inputs, models, 1, options, exact={"nbest": 1})
    sparse = all((output_alpha_of(model) or 1) > 1 for model in models)
    found = [math.inf] * len(exact)
    if sparse:
        counted = search(inputs, models, 1, options, exact={"nbest": options.strings})
        found = [len(h) if h[0]["certificate"].complete else math.inf for _, h in counted]
    references = [
        Reference(_log_prob(h[0]), h[0]["certificate"].exact, n) for (_, h), n in zip(exact, found)
    ]
    rows = []
    for beam in beams:
        answers = search(inputs, models, beam, options)
        rows.append({"beam": beam, "alphas": [output_alpha_of(m) or 1 for m in models]})
        rows[-1].update(summary(h[0]["certificate"] for _, h in answers))
        rows[-1].update(_against(references, answers))
    return rows


def search(
    inputs: Inputs, models: List[Any], beam: int, options: Any, exact: Any = None
) -> List[Tuple[List[int], Hypotheses]]:
    """(reference, hypotheses) of every sentence."""
    flags = argparse.Namespace(
        beam=beam, min_len=0, unnormalized=True, max_len_a=1.0, max_len_b=options.max_len_b
    )
    generator = inputs.task.build_generator(models, flags)
    if exact is None:
        generator = make_sparse(generator, certify=True)
    else:
        generator = ExactSearch(generator, max_expansions=options.max_expansions, **exact)
    pad, answers = inputs.task.target_dictionary.pad(), []
    for batch in inputs.batches(options.batch_size):
        found = inputs.task.inference_step(generator, models, batch)
        targets = [utils.strip_pad(target, pad).tolist() for target in batch["target"]]
        answers += zip(targets, found)
    return answers


def _log_prob(hypothesis: Row) -> float:
    return float(hypothesis["positional_scores"].double().sum())


def _against(references: List[Reference], answers: List[Tuple[List[int], Hypotheses]]) -> Row:
    """The beam's answers beside what exact search knows."""
    n, solved = len(answers), [r for r in references if r.proven]
    errors = empty_wins = correct = 0
    for reference, (target, hypotheses) in zip(references, answers):
        correct += hypotheses[0]["tokens"].tolist() == target
        # the same string may be off by the rounding of another batch
        worse = _log_prob(hypotheses[0]) < reference.log_prob - 1e-4
        errors += reference.proven and worse
        others = [_log_prob(h) for h in hypotheses if len(h["tokens"]) > 1]
        empty = hypotheses[0]["certificate"].empty
        empty_wins += empty > math.exp(max(others, default=-math.inf))
    middle = sorted(r.strings for r in references)[n // 2]
    return {
        "accuracy": correct / n,
        "search_errors": errors / len(solved) if solved else None,
        "empty_wins": empty_wins / n,
        "strings": middle if math.isfinite(middle) else None,
        "unsolved": 1 - len(solved) / n,
    }


def table(rows: List[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "| --- " + "| ---: " * 11 + "|"]
    lines += ["| " + " | ".join(_cell(row[key]) for key in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
