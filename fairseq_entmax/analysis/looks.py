"""All there is to see of one sentence: answers with probabilities, attention, tree, next tokens."""

import math
from typing import Any, Dict, List, NamedTuple, Optional

from torch import Tensor

from fairseq_entmax.decoding import Certificate
from fairseq_entmax.decoding.report import strings

from .commands.alignment import alignment_picture, cross_panels
from .commands.steps import steps_of, steps_picture
from .commands.tree import grove, tree_numbers, tree_picture
from .opened import Line, Opened
from .pictures import Picture
from .segmentation import joined

_MOST_STEPS, _MOST_LABEL = 40, 32


class Options(NamedTuple):
    """How to search: width of the beam, length of the n-best list, strings and mass of the tree,
    and how many prefixes exact search may continue for it.
    """

    beam: int = 5
    nbest: int = 5
    strings: int = 30
    mass: float = 1.0
    max_expansions: int = 2000


class Look(NamedTuple):
    """What was seen.

    Attributes:
        source, answer: as a person reads them; the answer is None where nothing is possible.
        reference: what is right, where it is known.
        candidates: text and probability of each of the n-best list, best first.
        certificate: what beam search has proven.
        pictures: alignment, tree and steps by name.
        numbers: all of it as JSON.
    """

    source: str
    answer: Optional[str]
    reference: Optional[str]
    candidates: List[Dict[str, Any]]
    certificate: Certificate
    pictures: Dict[str, Picture]
    numbers: Dict[str, Any]


def look(opened: Opened, line: Line, options: Options = Options()) -> Look:  # noqa: B008
    """Decodes a sentence and looks at how."""
    found = opened.beam(line, options.beam, options.nbest)
    best, certificate = found[0], found[0]["certificate"]
    candidates = [
        {
            "text": joined(each["text"].split()),
            "tokens": each["text"],
            "probability": math.exp(each["log_prob"]),
        }
        for each in strings(found, opened.target_words)
    ][: options.nbest]
    numbers: Dict[str, Any] = {
        "model": opened.name,
        "source": line.symbols,
        "candidates": candidates,
        "certificate": _finite(certificate),
    }
    pictures: Dict[str, Picture] = {}
    if candidates:
        pictures = _pictures(opened, line, best["tokens"].cpu(), options, numbers)
    reference = None if line.target is None else joined(opened.written(line.target))
    answer = candidates[0]["text"] if candidates else None
    source = joined(line.symbols)
    return Look(source, answer, reference, candidates, certificate, pictures, numbers)


def _finite(certificate: Certificate) -> Dict[str, Any]:
    bound = certificate.bound if math.isfinite(certificate.bound) else None
    return {**certificate._asdict(), "bound": bound}


def _pictures(
    opened: Opened, line: Line, target: Tensor, options: Options, numbers: Dict[str, Any]
) -> Dict[str, Picture]:
    written = opened.written(target)
    tree = opened.exact(line, options.strings, options.mass, options.max_expansions)
    panels, steps = cross_panels(opened, line, target), steps_of(opened, line, target)
    numbers["alignment"] = [panel._asdict() for panel in panels]
    numbers["tree"] = tree_numbers(opened, tree)
    numbers["steps"] = [step._asdict() for step in steps]
    labels = [[_short(s) for s in side] for side in (line.symbols, written)]
    return {
        "alignment": alignment_picture(panels, "cross", *labels),
        "tree": tree_picture([grove(opened, tree, line, "")], line),
        "steps": steps_picture(steps[:_MOST_STEPS], line, joined(written)),
    }


def _short(symbol: str) -> str:
    return symbol if len(symbol) <= _MOST_LABEL else symbol[: _MOST_LABEL - 1] + "\u2026"
