"""Minimum Bayes risk decoding: the string of the highest expected utility under the model.

Exact search lists strings s_1, s_2, ... with p_i; what is not listed has at most the mass U. The
expected utility of a candidate c is E(c) = sum p_i u(c, s_i) + (what the rest adds). A candidate
takes the place of the beam's answer b only if

    sum p_i (u(c, s_i) - u(b, s_i)) >= U max_y |u(c, y) - u(b, y)|,

so that E(c) >= E(b) whatever the rest is: never below beam search, by proof. Where the budget of
exact search ends before the mass that was asked for, samples of the model stand for the rest. The
choice is then by an estimate, and said to be sampled.

Source:
    Kumar and Byrne (NAACL 2004); sampling: Eikema and Aziz (COLING 2020).
"""

import math
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Protocol, Sequence, Tuple

import torch

from .exact import ExactSearch
from .hypotheses import Hypothesis

Symbols = Tuple[str, ...]


class Utility(Protocol):
    """What an answer is worth where another string is right; higher is better."""

    def __call__(self, answer: Symbols, right: Symbols) -> float:
        """u(answer, right)."""

    def spread(self, one: Symbols, other: Symbols) -> float:
        """A bound on |u(one, y) - u(other, y)| for every string y."""


class Decision(NamedTuple):
    """Why a string was chosen.

    Attributes:
        expected: its expected utility over the weighted strings, which are ``listed`` or sampled.
        beam: that of the beam's answer.
        gain: what the choice is sure to gain over the beam's answer, whatever the strings that
            are not listed are; never negative. An estimate where ``sampled``.
        mass: the probability of the listed strings.
        sampled: samples stand for what is not listed.
    """

    expected: float
    beam: float
    gain: float
    mass: float
    sampled: bool


class Choice(NamedTuple):
    """The order of the candidates, best first, and the decision for the first."""

    order: List[int]
    decision: Decision


def choose(
    candidates: Sequence[Symbols],
    weights: Sequence[float],
    utility: Utility,
    beam: int,
    missing: float = 0.0,
    sampled: bool = False,
) -> Choice:
    """The candidate of the highest expected utility of those proven no worse than the beam's.

    Args:
        candidates: distinct strings.
        weights: p_i of each, or what a sample stands for; 0 for one that is a candidate only.
        beam: the place of the beam's answer.
        missing: U, the most probability that further strings can have.

    Returns:
        all candidates by falling expected utility, but the one chosen first.

    Example:
        >>> class Accuracy:
        ...     def __call__(self, answer, right): return float(answer == right)
        ...     def spread(self, one, other): return float(one != other)
        >>> choose([("a",), ("b",)], [0.25, 0.5], Accuracy(), beam=0, missing=0.125).decision.gain
        0.125
    """
    total = math.fsum(weights) or 1.0
    expected = [
        math.fsum(w * utility(c, s) for s, w in zip(candidates, weights) if w > 0)
        for c in candidates
    ]
    sure = [
        value - expected[beam] - (missing * utility.spread(c, candidates[beam]) if missing else 0.0)
        for c, value in zip(candidates, expected)
    ]
    sure[beam] = 0.0
    allowed = [i for i, gain in enumerate(sure) if gain >= 0]
    best = max(allowed, key=lambda i: (expected[i], i == beam))
    rest = sorted((i for i in range(len(expected)) if i != best), key=lambda i: -expected[i])
    mean, of_beam = expected[best] / total, expected[beam] / total
    return Choice([best, *rest], Decision(mean, of_beam, sure[best], total, sampled))


class MinimumBayesRisk:
    """A fairseq generator that returns, first, the string of the highest expected utility.

    Args:
        exact: lists the strings, until its ``mass``.
        utility: what is maximised.
        symbols: the symbols of a string from its tokens without EOS.
        sampler: a generator that draws (``sampling=True``); where ``exact`` falls short of its mass
            the list alone counts if there is none.
        samples: number of draws, or a few more: fairseq draws fewer than V at a time.

    The hypotheses keep their scores, log p, and come by falling expected utility; the first has
    the :class:`Decision` under ``decision``.

    Example::

        >>> exact = ExactSearch(generator, nbest=1000, mass=0.99)  # doctest: +SKIP
        >>> search = MinimumBayesRisk(  # doctest: +SKIP
        ...     exact, utility("levenshtein"), lambda tokens: words.string(tokens).split()
        ... )
    """

    def __init__(
        self,
        exact: ExactSearch,
        utility: Utility,
        symbols: Callable[[List[int]], Symbols],
        sampler: Optional[Any] = None,
        samples: int = 64,
    ) -> None:
        self.exact, self.utility, self.symbols = exact, utility, symbols
        self.sampler, self.samples = sampler, samples
        self.eos = exact.eos
        self.symbols_to_strip_from_output = exact.symbols_to_strip_from_output

    @torch.no_grad()
    def generate(
        self, models: Any, sample: Dict[str, Any], **kwargs: Any
    ) -> List[List[Hypothesis]]:
        """As fairseq's ``generate``."""
        found = self.exact.generate(models, sample, **kwargs)
        short = [self._falls_short(hypotheses) for hypotheses in found]
        drawn: List[List[Hypothesis]] = [[] for _ in found]
        if self.sampler is not None and any(short):
            for _ in range(math.ceil(self.samples / self.sampler.beam_size)):
                for some, more in zip(drawn, self.sampler.generate(models, sample, **kwargs)):
                    some += more
        return [self._decide(h, d if s else []) for h, d, s in zip(found, drawn, short)]

    def _falls_short(self, hypotheses: List[Hypothesis]) -> bool:
        certificate = hypotheses[0]["certificate"]
        return not certificate.complete and certificate.mass < (self.exact.mass or 1.0)

    def _decide(self, found: List[Hypothesis], drawn: List[Hypothesis]) -> List[Hypothesis]:
        first = found[0]
        certificate, beam = first["certificate"], first["beam"]
        listed = {self._key(h): h for h in found if h["score"] > -math.inf}
        weights = {key: _probability(h) for key, h in listed.items()}
        mass = math.fsum(weights.values())
        outside = [h for h in drawn if h["score"] > -math.inf and self._key(h) not in listed]
        for hypothesis in outside:
            key = self._key(hypothesis)
            listed.setdefault(key, hypothesis)
            share = certificate.pruned / len(outside)
            weights[key] = weights.get(key, 0.0) + share
        if beam["score"] > -math.inf and self._key(beam) not in listed:
            listed[self._key(beam)], weights[self._key(beam)] = beam, 0.0
        if not listed or beam["score"] == -math.inf:
            return found
        keys = list(listed)
        missing = 0.0 if outside or certificate.complete else certificate.pruned
        strings = [self.symbols(list(key)) for key in keys]
        place = keys.index(self._key(beam))
        choice = choose(
            strings, [weights[k] for k in keys], self.utility, place, missing, bool(outside)
        )
        answer = [dict(listed[keys[i]]) for i in choice.order]
        search = "mbr-sampled" if outside else "mbr"
        best = certificate.exact and keys[choice.order[0]] == self._key(first)
        answer[0]["certificate"] = certificate._replace(search=search, exact=best)
        answer[0]["decision"] = choice.decision._replace(mass=mass)
        return answer

    @staticmethod
    def _key(hypothesis: Hypothesis) -> Tuple[int, ...]:
        return tuple(hypothesis["tokens"].tolist()[:-1])


def _probability(hypothesis: Hypothesis) -> float:
    return math.exp(float(hypothesis["positional_scores"].double().sum()))
