"""Exact search: the most probable strings of a model, with a proof.

Branch and bound. log p of a prefix bounds log p of every string that begins with it, so a prefix
that is no more probable than the n-th best string known cannot win. At each length at most
1 / p(n-th best) prefixes are more probable than that, because they exclude each other; with exact
zeros it is a handful. They are expanded many at a time, those of all sentences together, on the
decoder's incremental state.

The strings that beam search has found come first: where its certificate already proves them,
nothing is left to do. Where fewer than n strings are known, prefixes below a floor are left out,
and the floor falls until n strings above it are found or nothing has been left out.
"""

import heapq
import math
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .certificate import Certificate
from .frontier import Frontier
from .hypotheses import Hypothesis
from .sparse_beam import make_sparse

# small steps search the top of the tree often, large ones go deeper than need be
_FLOOR_STEP = math.log(256)


class Found(NamedTuple):
    """A string: its tokens with EOS, and log p up to each of them."""

    log_prob: float
    tokens: List[int]
    history: List[float]


class ExactSearch:
    """A fairseq generator that returns the ``nbest`` most probable strings of each sentence.

    Args:
        beam: a fairseq ``SequenceGenerator``, whose models, limits and first answers are used; it
            is adapted in place, to rank by log p and to end when nothing can win. A narrow beam
            is best: proving is not its task.
        nbest: number of strings. With ``mass``: the largest number.
        mass: stop when the strings have this probability.
        max_expansions: prefixes of one sentence to continue, beyond those of the beam search.
        max_memory: bytes for prefixes that wait; beyond them the least probable are given up.

    A search that ends early returns the best strings that it has found; ``proven`` in the first
    one's ``certificate`` counts those that are the most probable, ``exact`` says whether the first
    is, up to the rounding of the model's own probabilities. ``beam`` in the first one is what beam
    search, by log p, would have answered.

    Raises:
        ValueError: an option that exact search cannot honour.

    Example::

        >>> from fairseq.data import Dictionary
        >>> from fairseq.models.fconv import FConvDecoder, FConvEncoder, FConvModel
        >>> from fairseq.sequence_generator import SequenceGenerator
        >>> from fairseq_entmax.modules import sparsify
        >>> words, layers = Dictionary(), ((8, 3),)
        >>> word = words.add_symbol("word")
        >>> model = FConvModel(
        ...     FConvEncoder(words, 8, convolutions=layers),
        ...     FConvDecoder(words, 8, out_embed_dim=8, convolutions=layers),
        ... )
        >>> model = sparsify(model, output_alpha=2.0, attention_alpha=1.5).eval()
        >>> beam = SequenceGenerator([model], words, beam_size=1, max_len_b=4)
        >>> tokens, lengths = torch.tensor([[word, 2]]), torch.tensor([2])
        >>> sentence = {"net_input": {"src_tokens": tokens, "src_lengths": lengths}}
        >>> best = ExactSearch(beam).generate([model], sentence)[0][0]
        >>> best["certificate"].exact  # no string is more probable
        True
    """

    def __init__(
        self,
        beam: Any,
        nbest: int = 1,
        mass: Optional[float] = None,
        max_expansions: int = 10000,
        max_memory: int = 1 << 30,
    ) -> None:
        if nbest < 1 or max_expansions < 1 or max_memory < 1:
            raise ValueError(
                "nbest, max_expansions and max_memory must be at least 1, got "
                f"{nbest}, {max_expansions}, {max_memory}"
            )
        if hasattr(beam, "extract_alignment"):
            raise ValueError("--print-alignment needs --search beam")
        beam.normalize_scores = False
        self.beam = make_sparse(beam, nbest=nbest if mass is None else 0, certify=True)
        self.nbest, self.mass = nbest, mass
        self.max_expansions, self.max_memory = max_expansions, max_memory
        self.eos = beam.eos
        self.symbols_to_strip_from_output = beam.symbols_to_strip_from_output

    @torch.no_grad()
    def generate(
        self,
        models: Any,
        sample: Dict[str, Any],
        prefix_tokens: Optional[Tensor] = None,
        constraints: Optional[Tensor] = None,
        bos_token: Optional[int] = None,
    ) -> List[List[Hypothesis]]:
        """As fairseq's ``generate``; scores are log p, not normalised by length."""
        first = self.beam.generate(
            models,
            sample,
            prefix_tokens=prefix_tokens,
            constraints=constraints,
            bos_token=bos_token,
        )
        known = _strings(first)
        proofs = [hypotheses[0]["certificate"] for hypotheses in first]
        todo = [i for i, (k, p) in enumerate(zip(known, proofs)) if not self._is_done(k, p)]
        if todo:
            frontier = Frontier(self.beam, sample, todo, prefix_tokens, bos_token, self.max_memory)
            with frontier.any_rows():
                results = _Search(self, frontier, [known[i] for i in todo]).run()
            for i, strings, proof in zip(todo, *results):
                known[i], proofs[i] = strings, _joined(proofs[i], proof)
        return [self._answer(*each) for each in zip(first, known, proofs)]

    def _is_done(self, known: List[Found], proof: Certificate) -> bool:
        if proof.complete or proof.proven >= self.nbest:
            return True
        return self.enough_mass(known[: proof.proven])

    def enough_mass(self, proven: List[Found]) -> bool:
        """Whether these strings have the probability that was asked for."""
        return self.mass is not None and _mass(proven) >= self.mass

    def _answer(
        self, first: List[Hypothesis], known: List[Found], proof: Certificate
    ) -> List[Hypothesis]:
        """The hypotheses of one sentence and what is proven about them."""
        chosen = known[: self.nbest]
        if self.mass is not None:
            sums = [_mass(known[:i]) for i in range(len(chosen))]
            chosen = [string for string, before in zip(chosen, sums) if before < self.mass]
        given = first[0].get("given", [])
        if given:  # every string has p = 0: the best one stands for them
            chosen = chosen[:1]
        answer = [_hypothesis(string, first[0], given) for string in chosen] or [dict(first[0])]
        proven = sum(string.log_prob >= proof.bound for string in chosen)
        complete = proof.bound == -math.inf and len(chosen) == len(known)
        mass = _mass(chosen)
        answer[0]["beam"] = first[0]
        answer[0]["certificate"] = proof._replace(
            search="exact",
            exact=proven > 0 or (not chosen and proof.bound == -math.inf),
            proven=proven,
            complete=complete,
            mass=mass,
            pruned=0.0 if complete else max(0.0, proof.mass + proof.pruned - mass),
        )
        return answer


def _mass(strings: List[Found]) -> float:
    return math.fsum(math.exp(string.log_prob) for string in strings)


def _joined(beam: Certificate, exact: Certificate) -> Certificate:
    """The numbers of the second search, with the cost of both."""
    expansions = beam.expansions + exact.expansions
    supports = beam.support * beam.expansions + exact.support * exact.expansions
    return exact._replace(expansions=expansions, support=supports / expansions, empty=beam.empty)


def _strings(sentences: List[List[Hypothesis]]) -> List[List[Found]]:
    """Of each sentence by falling probability, of which a normalised beam search knows nothing;
    conditional on a forced prefix of p = 0. Two transfers for the whole batch.
    """
    everything = [h for hypotheses in sentences for h in hypotheses]
    if not everything:
        return [[] for _ in sentences]
    scores = torch.cat([h["positional_scores"] for h in everything])
    totals = torch.stack([h["score"] for h in everything]).to(scores)
    lengths = [len(h["tokens"]) for h in everything]
    *positional, last = torch.cat([scores, totals]).cpu().double().split([*lengths, len(totals)])
    tokens = torch.cat([h["tokens"] for h in everything]).cpu().split(lengths)
    numbers = iter(zip(positional, tokens, last.tolist()))
    return [
        _sorted_strings([(h.get("given", []), *next(numbers)) for h in hypotheses])
        for hypotheses in sentences
    ]


def _sorted_strings(hypotheses: List[Tuple[List[int], Tensor, Tensor, float]]) -> List[Found]:
    """Of (forced positions of p = 0, scores of the positions, tokens, score), all on the CPU."""
    found = []
    for given, scores, tokens, score in hypotheses:
        if score > -math.inf or given:
            scores = scores.clone()
            scores[given] = 0.0
            history = scores.cumsum(0).tolist()
            found.append(Found(history[-1], tokens.tolist(), history))
    return sorted(found, key=lambda string: -string.log_prob)


def _hypothesis(string: Found, like: Hypothesis, given: List[int]) -> Hypothesis:
    scores = torch.tensor([0.0, *string.history], dtype=torch.float64).diff()
    scores[given] = -math.inf
    return {
        "tokens": torch.tensor(string.tokens).to(like["tokens"]),
        "score": torch.tensor(-math.inf if given else string.log_prob).to(like["score"]),
        "attention": torch.empty(0),
        "alignment": torch.empty(0),
        "positional_scores": scores.to(like["positional_scores"]),
    }


class _Search:
    """The rounds of one batch."""

    def __init__(self, task: ExactSearch, frontier: Frontier, known: List[List[Found]]) -> None:
        self.task, self.frontier = task, frontier
        self.known = [{tuple(s.tokens): s for s in strings} for strings in known]
        # log p of the n best, as a heap: the worst comes first
        self.best = [sorted(s.log_prob for s in strings[: task.nbest]) for strings in known]
        self.floor = [-_FLOOR_STEP] * len(known)
        self.thresholds = [self._threshold(i) for i in range(len(known))]

    def _threshold(self, i: int) -> float:
        """log p that a string must exceed to be of interest."""
        if len(self.best[i]) < self.task.nbest:
            return self.floor[i]
        worst = self.best[i][0]
        return max(worst, self.floor[i]) if self.task.mass is not None else worst

    def run(self) -> Tuple[List[List[Found]], List[Certificate]]:
        todo = list(range(len(self.known)))
        while todo:
            self._round(todo)
            bounds = self.frontier.bound.tolist()
            spent = self.frontier.expansions.tolist()
            todo = [i for i in todo if not self._is_done(i, bounds[i], spent[i])]
            for i in todo:
                self.floor[i] -= _FLOOR_STEP
                self.thresholds[i] = self._threshold(i)
        return [self._sorted(i) for i in range(len(self.known))], self.frontier.certificates()

    def _is_done(self, i: int, bound: float, spent: int) -> bool:
        proven = [s for s in self._sorted(i) if s.log_prob >= bound]
        return (
            bound == -math.inf
            or spent >= self.task.max_expansions
            or self.frontier.gave_up[i]
            or len(proven) >= self.task.nbest
            or self.task.enough_mass(proven)
        )

    def _sorted(self, i: int) -> List[Found]:
        return sorted(self.known[i].values(), key=lambda string: -string.log_prob)

    def _round(self, todo: List[int]) -> None:
        """Find every string above the thresholds, or give up for want of means."""
        waiting = [self.frontier.roots(todo)]
        while waiting:
            prefixes = self.frontier.prune(waiting.pop(), self.thresholds, self.task.max_expansions)
            if not len(prefixes):
                continue
            now, later = self.frontier.split(prefixes)
            if len(later):
                waiting.append(later)
            finished, children = self.frontier.expand(now, self.thresholds)
            for sentence, tokens, history in finished:
                self._add(sentence, tokens, history)
            if len(children):
                waiting.append(children)
            self.frontier.forget(waiting)

    def _add(self, i: int, tokens: List[int], history: List[float]) -> None:
        # a string that the beam has found keeps its numbers, so that thresholds never fall
        if tuple(tokens) not in self.known[i]:
            self.known[i][tuple(tokens)] = Found(history[-1], tokens, history)
            full = len(self.best[i]) == self.task.nbest
            (heapq.heappushpop if full else heapq.heappush)(self.best[i], history[-1])
            self.thresholds[i] = self._threshold(i)
