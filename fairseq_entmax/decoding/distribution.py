"""The distribution over strings, from the list that exact search proves.

Strings s_1, s_2, ... are known with their p_i, M = sum p_i. What exact search left out has at most
the mass U, in strings of at most b each; mass that is not allowed (too long, say) belongs to
neither. So the distribution over allowed strings is q = p / (M + u) for some u in [0, U], and what
follows from every such u are proofs, up to the rounding of the model's own probabilities.
"""

import math
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .certificate import Certificate

Symbols = Tuple[str, ...]


class Bounds(NamedTuple):
    """A number of which only a part of the distribution is known.

    Attributes:
        value: as if there were no strings but the listed ones.
        low, high: it lies between them, whatever the missing mass is.
    """

    value: float
    low: float
    high: float


class Distribution(NamedTuple):
    """Strings by falling probability, and what is not among them.

    Attributes:
        strings: the symbols of each string, without EOS.
        probs: their probabilities p_i.
        missing: U, the most probability that further strings can have.
        largest: b, the most that one further string can have.
        longest: the number of symbols of the longest allowed string.
        words: V, the number of words to choose from at a step.

    Example:
        >>> d = Distribution([("a",), ("a", "b")], [0.6, 0.3], 0.1, 0.05, longest=3, words=2)
        >>> [round(number, 3) for number in d.probability(lambda string: "b" in string)]
        [0.333, 0.3, 0.4]
    """

    strings: List[Symbols]
    probs: List[float]
    missing: float
    largest: float
    longest: int
    words: int

    @property
    def mass(self) -> float:
        """M, the probability of the listed strings."""
        return math.fsum(self.probs)

    def expectation(
        self, function: Callable[[Symbols], float], lowest: float, highest: float
    ) -> Bounds:
        """E[f(Y)] under q, between the least and most of (sum p_i f(s_i) + u f') / (M + u).

        Args:
            function: f, of the symbols of a string.
            lowest, highest: bounds of f on every allowed string.

        Returns:
            the bounds; a monotone function of u takes its extremes at 0 and U.
        """
        mass, known = self.mass, self._sum(function)
        if mass == 0:
            return Bounds(math.nan, lowest, highest)
        total = mass + self.missing
        value = known / mass
        return Bounds(
            value,
            min(value, (known + self.missing * lowest) / total),
            max(value, (known + self.missing * highest) / total),
        )

    def _sum(self, function: Callable[[Symbols], float]) -> float:
        return math.fsum(p * function(s) for s, p in zip(self.strings, self.probs))

    def probability(self, predicate: Callable[[Symbols], bool]) -> Bounds:
        """P(predicate), such as a constraint: the marginal of any event."""
        return self.expectation(lambda string: float(predicate(string)), 0.0, 1.0)

    def matching(self, pattern: str, separator: str = " ") -> Bounds:
        """P(a regular expression is found in the string), its symbols joined by ``separator``.

        Example:
            >>> d = Distribution([("e", "n"), ("e",)], [0.75, 0.25], 0.0, 0.0, 2, 2)
            >>> d.matching("en$", separator="").value
            0.75
        """
        compiled = re.compile(pattern)
        return self.probability(lambda string: bool(compiled.search(separator.join(string))))

    def length(self) -> Bounds:
        """The expected number of symbols, EOS not counted."""
        return self.expectation(len, 0.0, float(self.longest))

    def entropy(self) -> Bounds:
        r"""H(q) in nats.

        .. math::
            H(q) = \frac{h + g}{M + u} + \log(M + u), \quad h = -\sum_i p_i \log p_i

        g, the same sum over the strings that are not listed, is at least -u log b, as each of them
        has at most b. At most it is u log(N / u), if all N strings that there can be shared u.
        """
        mass = self.mass
        if mass == 0:
            return Bounds(math.nan, 0.0, self.log_strings())
        h = -math.fsum(p * math.log(p) for p in self.probs if p > 0)
        value = max(0.0, h / mass + math.log(mass))  # below zero only by rounding
        if self.missing == 0:
            return Bounds(value, value, value)
        cost = -math.log(min(self.largest or 1.0, 1.0))
        # (h + c u) / (M + u) + log(M + u) falls until u = h - c M - M and rises then
        lowest = min(max(h - cost * mass - mass, 0.0), self.missing)
        low = (h + cost * lowest) / (mass + lowest) + math.log(mass + lowest)
        return Bounds(value, max(0.0, min(value, low)), self._most_entropy(value))

    def _most_entropy(self, listed: float) -> float:
        """(1 - w) H + w log N + H(w), concave in the share w of the missing strings."""
        log_n = self.log_strings()
        share = self.missing / (self.mass + self.missing)
        best = 1 / (1 + math.exp(min(listed - log_n, 700.0)))  # where its slope is 0
        w = min(share, best)
        return (1 - w) * listed + w * log_n + _binary_entropy(w)

    def log_strings(self) -> float:
        """log N, a bound on the number of allowed strings: V^0 + ... + V^longest of them."""
        return (self.longest + 1) * math.log(max(self.words, 2))

    def posterior(self) -> List[Tuple[Symbols, Bounds]]:
        """Every listed string with q, most probable first."""
        mass = self.mass
        total = mass + self.missing
        return [
            (s, Bounds(p / mass, p / total, p / mass)) for s, p in zip(self.strings, self.probs)
        ]

    @property
    def certain(self) -> bool:
        """One string has all the probability: no other is possible."""
        return len(self.strings) == 1 and self.missing == 0


def _binary_entropy(w: float) -> float:
    return -sum(x * math.log(x) for x in (w, 1 - w) if x > 0)


def distribution_of(
    hypotheses: Sequence[Dict[str, Any]],
    dictionary: Any,
    longest: int,
    words: Optional[int] = None,
) -> Distribution:
    """The distribution that the hypotheses of one sentence prove.

    Args:
        hypotheses: of :class:`fairseq_entmax.decoding.ExactSearch`, with their certificate.
        dictionary: fairseq's, of the target.
        longest: symbols of the longest allowed string
            (:func:`fairseq_entmax.decoding.sparse_beam.longest_allowed`).

    Raises:
        ValueError: there is no certificate of an exact search.
    """
    certificate: Optional[Certificate] = hypotheses[0].get("certificate")
    if certificate is None or certificate.search != "exact":
        raise ValueError(
            "a distribution needs the hypotheses of ExactSearch with their certificate, got "
            f"{'none' if certificate is None else certificate.search}"
        )
    real = [h for h in hypotheses if h["score"] > -math.inf]
    probs = [math.exp(float(h["positional_scores"].double().sum())) for h in real]
    missing = 0.0 if certificate.complete else certificate.pruned
    # strings that were found and not listed are no more probable than the last of the list
    largest = max(math.exp(certificate.bound), min(probs, default=0.0))
    return Distribution(
        [tuple(dictionary[t] for t in h["tokens"].tolist()[:-1]) for h in real],
        probs,
        missing,
        min(largest, missing),
        longest,
        len(dictionary) if words is None else words,
    )


class CalibrationBin(NamedTuple):
    """Answers of like confidence: ``low`` < confidence <= ``high``, or certain ones alone."""

    low: float
    high: float
    answers: int
    confidence: float  # mean
    accuracy: float


def calibration(
    confidences: Sequence[float], correct: Sequence[bool], bins: int = 10
) -> List[CalibrationBin]:
    """How often answers of each confidence are right; the last bin is the spike at 1.

    A sparse model is certain of many answers (no other string is possible), which a bin from 0.9
    to 1 would hide: they have a bin (1, 1) of their own. Empty bins are left out.

    Raises:
        ValueError: not as many confidences as answers, or no bins.

    Example:
        >>> [tuple(b) for b in calibration([1.0, 1.0, 0.75], [True, True, False], bins=2)]
        [(0.5, 1.0, 1, 0.75, 0.0), (1.0, 1.0, 2, 1.0, 1.0)]
    """
    if len(confidences) != len(correct) or bins < 1:
        raise ValueError(
            f"calibration needs a confidence for each answer and at least one bin, got "
            f"{len(confidences)}, {len(correct)} and {bins}"
        )
    members: Dict[int, List[Tuple[float, bool]]] = {}
    for confidence, right in zip(confidences, correct):
        place = bins if confidence >= 1 else max(0, math.ceil(confidence * bins) - 1)
        members.setdefault(place, []).append((confidence, right))
    found = []
    for place, answers in sorted(members.items()):
        n = len(answers)
        means = (math.fsum(c for c, _ in answers) / n, sum(right for _, right in answers) / n)
        found.append(CalibrationBin(place / bins, min(1.0, (place + 1) / bins), n, *means))
    return found


def calibration_error(found: Sequence[CalibrationBin]) -> float:
    """The expected calibration error: the mean gap of confidence and accuracy over all answers.

    Source:
        Naeini, Cooper, Hauskrecht (AAAI 2015).
    """
    n = sum(each.answers for each in found)
    return sum(each.answers * abs(each.confidence - each.accuracy) for each in found) / max(n, 1)
