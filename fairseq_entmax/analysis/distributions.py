"""What is proven of the strings that a model allows, over many sentences."""

import math
from typing import Any, Dict, Iterable, List, NamedTuple, Sequence

from fairseq_entmax.decoding.distribution import (
    Bounds,
    CalibrationBin,
    Distribution,
    calibration,
    calibration_error,
)

from .opened import Line

Row = Dict[str, Any]


class Known(NamedTuple):
    """One sentence: what its distribution says, with bounds.

    Attributes:
        mass: probability of the listed strings.
        certain: no other string is possible than the one listed.
        confidence: the least that the best string can have; ``correct``: it is the reference.
        events: P of each pattern.
        best: the most probable strings as text, with their posterior.
    """

    id: Any
    source: str
    mass: float
    strings: int
    certain: bool
    entropy: Bounds
    length: Bounds
    events: Dict[str, Bounds]
    confidence: float
    correct: bool
    best: List[Any]

    def row(self) -> Row:
        """As JSON has it: numbers that do not exist are null."""
        return {key: _plain(value) for key, value in self._asdict().items()}


def known_of(
    line: Line,
    found: Distribution,
    reference: Sequence[str],
    patterns: Dict[str, str],
    separator: str,
    nbest: int,
) -> Known:
    """The numbers of one sentence.

    Args:
        reference: symbols of the right string.
        patterns: regular expressions by name, sought in the symbols joined by ``separator``.
        nbest: strings to keep.
    """
    posterior = found.posterior()
    return Known(
        id=line.id,
        source=separator.join(line.symbols),
        mass=found.mass,
        strings=len(found.strings),
        certain=found.certain,
        entropy=found.entropy(),
        length=found.length(),
        events={name: found.matching(text, separator) for name, text in patterns.items()},
        confidence=posterior[0][1].low if posterior else 0.0,
        correct=bool(posterior) and posterior[0][0] == tuple(reference),
        best=[(separator.join(symbols), share) for symbols, share in posterior[:nbest]],
    )


def mean(bounds: Iterable[Bounds]) -> Bounds:
    """The mean of numbers with bounds; the value of sentences that have one."""
    given = list(bounds)
    values = [b.value for b in given if not math.isnan(b.value)]
    n = max(len(given), 1)
    value = math.fsum(values) / len(values) if values else math.nan
    return Bounds(value, math.fsum(b.low for b in given) / n, math.fsum(b.high for b in given) / n)


class Summary(NamedTuple):
    """Means over sentences, and how often answers of each confidence are right."""

    sentences: int
    mass: float
    strings: float
    certain: float
    accuracy: float
    entropy: Bounds
    length: Bounds
    events: Dict[str, Bounds]
    calibration_error: float
    calibration: List[CalibrationBin]

    def row(self) -> Row:
        """As JSON has it."""
        return {key: _plain(value) for key, value in self._asdict().items()}


def summarise(known: Sequence[Known]) -> Summary:
    """Raises:
    ValueError: no sentences.
    """
    if not known:
        raise ValueError("no sentences to summarise")
    n = len(known)
    bins = calibration([k.confidence for k in known], [k.correct for k in known])
    return Summary(
        sentences=n,
        mass=math.fsum(k.mass for k in known) / n,
        strings=sum(k.strings for k in known) / n,
        certain=sum(k.certain for k in known) / n,
        accuracy=sum(k.correct for k in known) / n,
        entropy=mean(k.entropy for k in known),
        length=mean(k.length for k in known),
        events={name: mean(k.events[name] for k in known) for name in known[0].events},
        calibration_error=calibration_error(bins),
        calibration=bins,
    )


def _plain(value: Any) -> Any:
    """Tuples with names as dictionaries; JSON has no NaN."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
