"""The numbers of a report on one model: settings, scores, search, errors."""

import math
import platform
from importlib import import_module, metadata
from typing import Any, Dict, List, NamedTuple, Sequence

import sacrebleu
from torch import Tensor, nn

from fairseq_entmax.decoding.everywhere import output_alpha_of
from fairseq_entmax.modules.sparsify import attention_places
from fairseq_entmax.scoring.distance import levenshtein

from .opened import Hypotheses, Line, Opened
from .segmentation import joined
from .steps import next_token_probs

_TRAINING = (
    *("task", "arch", "criterion", "optimizer", "lr", "lr_scheduler", "max_update", "max_epoch"),
    *("batch_size", "max_tokens", "dropout", "label_smoothing", "seed"),
)


class Answered(NamedTuple):
    """A line of the data and what the model says to it, as symbols; empty where nothing is
    possible.
    """

    line: Line
    answer: List[str]
    reference: List[str]
    hypotheses: Hypotheses

    @property
    def correct(self) -> bool:
        """The answer is the reference."""
        return self.answer == self.reference


def answered(opened: Opened, lines: Sequence[Line], beam: int = 5) -> List[Answered]:
    """The best answers to lines that have references.

    Raises:
        ValueError: there are no lines.
    """
    if not lines:
        raise ValueError("no sentences to report on: give --sentences, at least 1")
    found = []
    for line, hypotheses in zip(lines, opened.beams(lines, beam)):
        alive = hypotheses[0]["score"] > -math.inf
        answer = opened.written(hypotheses[0]["tokens"]) if alive else []
        reference = opened.written(line.target) if line.target is not None else []
        found.append(Answered(line, answer, reference, hypotheses))
    return found


def scores(found: Sequence[Answered]) -> Dict[str, float]:
    """Exact match in %, mean edit distance in tokens and, of sentences, BLEU and chrF."""
    n = len(found)
    result = {
        "exact match in %": 100 * sum(one.correct for one in found) / n,
        "mean edit distance in tokens": sum(_distance(one) for one in found) / n,
    }
    references = [joined(one.reference) for one in found]
    if sum(len(text.split()) > 1 for text in references) > n / 2:
        answers = [joined(one.answer) for one in found]
        result["BLEU"] = sacrebleu.corpus_bleu(answers, [references]).score
        result["chrF"] = sacrebleu.corpus_chrf(answers, [references]).score
    return result


def _distance(one: Answered) -> int:
    return levenshtein(one.answer, one.reference)


class Mistake(NamedTuple):
    """A wrong answer; ``gold`` is the probability of the reference, 0 where it is impossible."""

    source: str
    answer: str
    reference: str
    probability: float
    gold: float
    distance: int


def worst(opened: Opened, found: Sequence[Answered], most: int = 10) -> List[Mistake]:
    """The wrong answers that are farthest from their references, the surest first."""
    wrong = [(one, _log_prob(one.hypotheses)) for one in found if not one.correct]
    wrong.sort(key=lambda pair: (-_distance(pair[0]), -pair[1]))
    return [
        Mistake(
            joined(one.line.symbols),
            joined(one.answer),
            joined(one.reference),
            math.exp(log_prob),
            math.exp(reference_log_prob(opened, one.line)),
            _distance(one),
        )
        for one, log_prob in wrong[:most]
    ]


def _log_prob(hypotheses: Hypotheses) -> float:
    return float(hypotheses[0]["positional_scores"].double().sum())


def reference_log_prob(opened: Opened, line: Line) -> float:
    """log p of the reference; -inf where it is impossible."""
    assert line.target is not None
    probs: Tensor = next_token_probs(opened.models, opened.sample([line]), line.target)
    chosen = probs.gather(1, line.target.unsqueeze(1).long()).double()
    return float(chosen.log().sum())


def settings(opened: Opened) -> Dict[str, str]:
    """What the model is, how it was trained, and the versions that look at it."""
    (first, *others) = opened.models
    rows = {
        "model": opened.name,
        "checkpoint": ", ".join(opened.paths),
        "data": opened.data,
        "parameters": f"{sum(p.numel() for p in first.parameters()):,}",
        "alpha of the output": f"{output_alpha_of(first) or 1:g}",
        "alphas of the attention": _attention_alphas(first),
        "words of source and target": f"{len(opened.source_words):,}, {len(opened.target_words):,}",
    }
    if others:
        rows["models together"] = str(len(opened.models))
    return {**rows, **_trained_with(opened.settings), "versions": versions()}


def _attention_alphas(model: nn.Module) -> str:
    kinds: Dict[str, set] = {}
    for place in attention_places(model):
        learned: Any = getattr(place.attention, "learned_alpha", None)
        alphas = [f"{getattr(place.attention, 'alpha', 1.0):g}"]
        if learned is not None:
            alphas = [f"{alpha:.2f}" for alpha in learned().tolist()]
        kinds.setdefault(place.where, set()).update(alphas)
    return "; ".join(f"{kind} {' '.join(sorted(found))}" for kind, found in kinds.items())


def _trained_with(cfg: Any) -> Dict[str, str]:
    """The options of the training that a reader asks for first."""
    found: Dict[str, str] = {}
    for group in ("model", "task", "criterion", "optimizer", "optimization", "dataset", "common"):
        options = cfg.get(group)
        values = dict(options) if hasattr(options, "keys") else vars(options or object)
        for name in _TRAINING:
            value = values.get(name)
            if isinstance(value, (str, int, float, list)) and value not in ("", [], 0):
                found.setdefault(name, str(value))
    return {name.replace("_", " "): found[name] for name in _TRAINING if name in found}


def versions() -> str:
    """Of Python, and of the packages that are installed."""
    found = [f"{name} {_version(name)}" for name in ("fairseq_entmax", "fairseq", "torch")]
    return ", ".join([*found, f"Python {platform.python_version()}"])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        module = import_module(package)
        return str(getattr(module, "__version__", "unknown"))
