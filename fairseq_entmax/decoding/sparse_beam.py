"""Beam search that is right when most continuations have probability zero.

fairseq's ``SequenceGenerator`` finishes a sentence when it holds ``beam`` finished hypotheses or
when EOS is chosen at the maximum length. With a sparse output neither may ever happen: there can
be fewer strings with p > 0 than the beam is wide. Two adapters around the stock generator mend it:

* :class:`SparseSearch` wraps the search strategy. Candidates with p = 0 stay behind the living
  ones; when nothing in a sentence lives on, they become finished *dead* hypotheses, which ends it.
* :func:`real_hypotheses` removes the dead ones from the result. A sentence in which no string
  with p > 0 was found keeps one truncated hypothesis with score -inf.

A third, :class:`BeamLedger`, ends a sentence when nothing alive can enter its n-best list, and
writes the certificates.

After a forced prefix of probability zero the search goes on with what the model says then; the one
hypothesis it keeps has score -inf, at the forced words that are impossible and in total.
"""

import contextlib
import copy
import functools
import math
from typing import Any, Dict, List, Optional

import torch
from fairseq.search import BeamSearch, Sampling, Search
from torch import Tensor, nn

from .certificate import Objective
from .hypotheses import DEAD, Hypothesis, real_hypotheses
from .ledger import BeamLedger, Candidates
from .sparse_step import SparseStep, sparse_step


class SparseSearch(nn.Module):
    """A fairseq ``Search`` whose sentences end when no continuation has p > 0.

    Example::

        >>> from fairseq.data import Dictionary
        >>> from fairseq.search import BeamSearch
        >>> type(SparseSearch(BeamSearch(Dictionary())).inner).__name__
        'BeamSearch'
    """

    def __init__(self, search: Search) -> None:
        super().__init__()
        self.inner = search
        self.open_batch(None)

    def open_batch(self, ledger: Optional[BeamLedger], places: Optional[SparseStep] = None) -> None:
        """Begin a batch, its books, and where a step lists few words their places."""
        self.ledger, self.places = ledger, places
        self.rows: Optional[Tensor] = None  # sentences still at work
        self.impossible: Dict[int, List[int]] = {}  # sentence: places of forced words with p = 0

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def step(
        self,
        step: int,
        lprobs: Tensor,
        scores: Tensor,
        prev_output_tokens: Tensor,
        original_batch_idxs: Tensor,
    ) -> Candidates:
        """As fairseq's: (bsz, beam, V) log-probabilities -> candidate scores, tokens and beams,
        each (bsz, candidates).
        """
        if isinstance(self.inner, Sampling):
            return self._sampling_step(step, lprobs, scores)
        found: Candidates = self.inner.step(
            step, lprobs, scores, prev_output_tokens, original_batch_idxs
        )
        candidates = self._bury_dead(*found, width=2 * lprobs.size(1))
        if self.inner.supports_constraints:
            candidates = self._living_first(*candidates)
        if self.ledger is not None:
            candidates = self.ledger.step(step, lprobs, scores, candidates)
        scores, tokens, beams = self._end_dead_sentences(*candidates, scores)
        return scores, tokens if self.places is None else self.places.words(tokens, beams), beams

    def prune_sentences(self, batch_idxs: Tensor) -> None:
        """As fairseq's: only these sentences of the batch go on."""
        self.inner.prune_sentences(batch_idxs)
        self.rows = batch_idxs if self.rows is None else self.rows[batch_idxs]
        if self.ledger is not None:
            self.ledger.keep(batch_idxs)

    def allow_forced(self, step: int, lprobs: Tensor, prefix_tokens: Tensor) -> Tensor:
        """Take forced words of probability zero as given, and remember them.

        Args:
            lprobs: (bsz * beam, V), where fairseq has left the forced words only.
            prefix_tokens: (bsz, length), with padding where nothing is forced any more.
        """
        forced = prefix_tokens[:, step]
        lprobs = lprobs.view(len(forced), -1, lprobs.size(-1))
        places = forced.view(-1, 1, 1).expand(-1, lprobs.size(1), 1)
        before = lprobs.gather(2, places)
        dead = (before == -math.inf) & (places != self.pad)
        for row in dead[:, 0, 0].nonzero()[:, 0].tolist():  # the first beam is alive
            sentence = row if self.rows is None else int(self.rows[row])
            self.impossible.setdefault(sentence, []).append(step)
        return lprobs.scatter(2, places, before.masked_fill(dead, 0.0)).flatten(0, 1)

    def _bury_dead(self, scores: Tensor, tokens: Tensor, beams: Tensor, width: int) -> Candidates:
        """At least ``width`` candidates, so that a finished one is never continued for want of
        another, and no EOS among those with p = 0.
        """
        missing = width - scores.size(1)
        if missing > 0:
            scores = torch.nn.functional.pad(scores, (0, missing), value=-math.inf)
            tokens = torch.nn.functional.pad(tokens, (0, missing))
            beams = torch.nn.functional.pad(beams, (0, missing))
        dead = ~(scores > -math.inf)  # also NaN
        return scores.masked_fill(dead, -math.inf), tokens.masked_fill(dead, self.unk), beams

    def _living_first(self, scores: Tensor, tokens: Tensor, beams: Tensor) -> Candidates:
        """Constrained search sorts by met constraints before probability, and remembers the
        state of each candidate by its place.
        """
        order = (scores == -math.inf).long().argsort(dim=1, stable=True)
        states = self.inner.constraint_states or []
        self.inner.constraint_states = [
            [sentence[min(i, len(sentence) - 1)] for i in places]
            for sentence, places in zip(states, order.tolist())
        ]
        return scores.gather(1, order), tokens.gather(1, order), beams.gather(1, order)

    def _end_dead_sentences(
        self, scores: Tensor, tokens: Tensor, beams: Tensor, history: Tensor
    ) -> Candidates:
        """Where no candidate lives on, all are finished; the dead ones with the score DEAD and
        the most probable prefix.
        """
        alive = scores > -math.inf
        ended = ~(alive & (tokens != self.eos)).any(1, keepdim=True)
        if scores.device.type == "cpu" and not bool(ended.any()):  # elsewhere the look would wait
            return scores, tokens, beams
        order = scores.argsort(dim=1, descending=True, stable=True)
        order = torch.where(ended, order, torch.arange(order.size(1), device=order.device))
        scores, tokens, beams = (x.gather(1, order) for x in (scores, tokens, beams))
        dead = ended & (scores == -math.inf)
        best = history[:, :, -1].argmax(1, keepdim=True) if history.size(2) else beams[:, :1] * 0
        return (
            scores.masked_fill(dead, DEAD),
            tokens.masked_fill(dead, self.eos),
            torch.where(dead, best, beams),
        )

    def _sampling_step(self, step: int, lprobs: Tensor, scores: Tensor) -> Candidates:
        """Every beam is a sample of its own: one without a continuation ends by itself."""
        lprobs = lprobs.masked_fill(lprobs.isnan(), -math.inf)
        dead = (lprobs == -math.inf).all(2)  # bsz x beam
        lprobs[:, :, self.eos] = lprobs[:, :, self.eos].masked_fill(dead, 0.0)
        new_scores, tokens, beams = self.inner.step(step, lprobs, scores)
        if step == 0:  # all samples were drawn from the first row
            dead = dead[:, :1].expand_as(dead)
        return new_scores.masked_fill(dead, DEAD), tokens, beams


def make_sparse(generator: Any, nbest: int = 0, certify: bool = False) -> Any:
    """Adapt a fairseq ``SequenceGenerator`` in place; returns it.

    Args:
        nbest: end a sentence when nothing alive can enter its ``nbest`` best hypotheses; the list
            may then hold fewer than the beam. 0: never.
        certify: give the first hypothesis of each sentence a ``certificate``.

    Raises:
        ValueError: certificates are asked of a search that cannot give them.
    """
    if isinstance(generator.search, SparseSearch):  # adapted before
        generator.search = generator.search.inner
        generator.generate, generator._prefix_tokens = generator.stock_methods
    refusal = _unaccountable(generator)
    if certify and refusal:
        raise ValueError(f"certificates need plain beam search: {refusal}")
    keep_books = (nbest > 0 or certify) and not refusal
    search = generator.search = SparseSearch(generator.search)
    generate, force = generator.stock_methods = generator.generate, generator._prefix_tokens

    @functools.wraps(generate)
    def generate_sparse(models: Any, sample: Any, **kwargs: Any) -> List[List[Hypothesis]]:
        """fairseq's ``generate`` without the hypotheses that have probability zero."""
        prefix = kwargs.get("prefix_tokens")
        step = sparse_step(generator, certify, 0 if prefix is None else prefix.size(1))
        books = _ledger(generator, sample, nbest, certify) if keep_books else None
        search.open_batch(books, step)
        with step.installed() if step else contextlib.nullcontext():
            hypotheses = generate(models, sample, **kwargs)
        # alignment counts on exactly `beam` hypotheses: the dead may go only now
        found = real_hypotheses(hypotheses)
        if prefix is not None:
            found = [_distinct(hypotheses) for hypotheses in found]
        if certify:
            _attach_certificates(generator, found)
        for sentence, places in search.impossible.items():
            found[sentence] = [_under_impossible_prefix(found[sentence][0], places)]
        return found

    @functools.wraps(force)
    def force_sparse(
        step: int, lprobs: Tensor, scores: Any, tokens: Any, prefix: Any, beam: int
    ) -> Any:
        lprobs, tokens, scores = force(step, lprobs, scores, tokens, prefix, beam)
        return search.allow_forced(step, lprobs, prefix), tokens, scores

    generator.generate, generator._prefix_tokens = generate_sparse, force_sparse
    generator.__prepare_scriptable__ = functools.partial(_stock, generator)
    return generator


def _stock(generator: Any) -> Any:
    """The generator before it was adapted, which is what TorchScript compiles."""
    stock = copy.copy(generator)
    for name in ("generate", "_prefix_tokens", "stock_methods", "__prepare_scriptable__"):
        del stock.__dict__[name]
    stock._modules = generator._modules.copy()
    stock._modules["search"] = generator.search.inner
    return stock


def _ledger(generator: Any, sample: Any, nbest: int, certify: bool) -> BeamLedger:
    power = generator.len_penalty if generator.normalize_scores else 0
    objective = Objective(power, longest_allowed(generator, sample) + 1)
    return BeamLedger(objective, generator.eos, generator.unk, nbest, certify)


def _under_impossible_prefix(hypothesis: Hypothesis, places: List[int]) -> Hypothesis:
    """The best string given a prefix of p = 0; ``given`` names the places of its zeros."""
    if not hypothesis["score"] > -math.inf:  # none was found
        return hypothesis
    positional = hypothesis["positional_scores"].clone()
    positional[places] = -math.inf
    score = torch.full_like(hypothesis["score"], -math.inf)
    return {**hypothesis, "positional_scores": positional, "score": score, "given": places}


def _unaccountable(generator: Any) -> str:
    """Why the scores of this search are not log-probabilities that only fall; '' if they are."""
    search = getattr(generator.search, "inner", generator.search)
    if type(search) is not BeamSearch:
        return f"{type(search).__name__} forces, draws or penalises words"
    if generator.lm_model is not None:
        return "with --lm-path scores are no probabilities"
    if generator.unk_penalty < 0:
        return f"--unkpen {generator.unk_penalty} rewards unknown words"
    return ""


def longest_allowed(generator: Any, sample: Dict[str, Any]) -> int:
    """fairseq's limit on the tokens of a hypothesis, without EOS, for this batch."""
    net_input = sample["net_input"]
    source = net_input["src_tokens"] if "src_tokens" in net_input else net_input["source"]
    length = int(generator.max_len_a * source.size(1) + generator.max_len_b)
    return min(length, int(generator.max_len) - 1)


def _distinct(hypotheses: List[Hypothesis]) -> List[Hypothesis]:
    """fairseq finishes a forced prefix that ends with EOS once for every beam."""
    first: Dict[Any, Hypothesis] = {}
    for hypothesis in hypotheses:
        first.setdefault(tuple(hypothesis["tokens"].tolist()), hypothesis)
    return list(first.values())


def _attach_certificates(generator: Any, found: List[List[Hypothesis]]) -> None:
    for hypotheses, certificate in zip(found, generator.search.ledger.certificates(found)):
        if generator.min_len > 0:
            certificate = certificate._replace(empty=None)
        hypotheses[0]["certificate"] = certificate
