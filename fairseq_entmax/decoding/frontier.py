"""Prefixes that wait for their next token, and the decoder calls that continue them.

The models may lie on an accelerator; the books of the search stay in the CPU's memory. What a
decoder call finds comes over in one transfer, after the wait for its size.
"""

import contextlib
import math
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .certificate import Certificate
from .sparse_beam import longest_allowed
from .winners import Winners, winners

# rows of one decoder call, and numbers in its scores
_MOST_ROWS, _MOST_SCORES = 1024, 1 << 22

States = List[Dict[str, Any]]  # fairseq's incremental state of each model


class Parents(NamedTuple):
    """Prefixes that the decoder has read: its state, on its device, and on the CPU (n, length)
    tokens and log-probabilities.
    """

    states: States
    tokens: Tensor
    history: Tensor

    def bytes(self) -> int:
        """The memory that the state of these prefixes takes."""
        tensors = [self.tokens, self.history, *_tensors(self.states)]
        return sum(t.numel() * t.element_size() for t in tensors)


class Prefixes(NamedTuple):
    """n prefixes of the same length: row of the parent, last token, log p, sentence; (n,) each, on
    the CPU.
    """

    parents: Parents
    parent: Tensor
    token: Tensor
    log_prob: Tensor
    sentence: Tensor

    def __len__(self) -> int:
        return self.token.numel()

    def select(self, which: Tensor) -> "Prefixes":
        """Some of them: indices, or a mask (n,)."""
        return Prefixes(self.parents, *(column[which] for column in self[1:]))

    def bytes(self) -> int:
        """The memory that they take, with their parents."""
        return self.parents.bytes() + 4 * 8 * len(self)


class Frontier:
    """The tree of one batch of sentences: what of it was expanded, and what was left out.

    Args:
        generator: the fairseq generator whose models and limits hold.
        todo: rows of the batch to search; sentences are numbered in this order.
    """

    def __init__(
        self,
        generator: Any,
        sample: Dict[str, Any],
        todo: List[int],
        prefix_tokens: Optional[Tensor],
        bos_token: Optional[int],
        max_memory: int,
    ) -> None:
        self.generator, self.model, self.max_memory = generator, generator.model, max_memory
        self.bos = generator.eos if bos_token is None else bos_token
        self.longest = longest_allowed(generator, sample)
        net_input = sample["net_input"]
        source = net_input["src_tokens"] if "src_tokens" in net_input else net_input["source"]
        self.device = source.device
        which = torch.tensor(todo).to(self.device)
        # whole, for an LSTM counts on the padding of the batch
        outputs = self.model.forward_encoder(net_input)
        self.encoder_outs = self.model.reorder_encoder_out(outputs, which)
        self.prefix = None if prefix_tokens is None else prefix_tokens[which]
        n = len(todo)
        self.bound = torch.full((n,), -math.inf, dtype=torch.float64)
        self.pruned = torch.zeros(n, dtype=torch.float64)
        self.ended = torch.zeros(n, dtype=torch.float64)
        self.expansions = torch.zeros(n, dtype=torch.long)
        self.supports = torch.zeros_like(self.expansions)
        self.gave_up = [False] * n

    def roots(self, todo: List[int]) -> Prefixes:
        """The empty prefixes of these sentences; what was left out of them is forgotten."""
        sentence = torch.tensor(todo)
        self.bound[sentence] = -math.inf
        self.pruned[sentence] = self.ended[sentence] = 0.0
        zeros = torch.zeros(len(todo), dtype=torch.float64)
        nothing = Parents(
            [{} for _ in range(self.model.models_size)],
            sentence.new_empty(len(todo), 0),
            zeros.new_empty(len(todo), 0),
        )
        rows = torch.arange(len(todo))
        return Prefixes(nothing, rows, torch.full_like(rows, self.bos), zeros, sentence)

    def prune(self, prefixes: Prefixes, thresholds: List[float], most: int) -> Prefixes:
        """Without those that cannot win, and those beyond ``most`` expansions of a sentence."""
        least = torch.tensor(thresholds, dtype=torch.float64)
        wins = prefixes.log_prob > least[prefixes.sentence]
        self.leave_out(prefixes.select(~wins))
        prefixes = prefixes.select(wins)
        # most probable first; then each sentence may have what it has left
        prefixes = prefixes.select(prefixes.log_prob.argsort(descending=True))
        left = (most - self.expansions)[prefixes.sentence]
        affordable = _rank_within(prefixes.sentence) < left
        self._give_up(prefixes.select(~affordable))
        return prefixes.select(affordable)

    def split(self, prefixes: Prefixes) -> Tuple[Prefixes, Prefixes]:
        """What one decoder call takes, and the rest."""
        rows = max(1, min(_MOST_ROWS, _MOST_SCORES // self.generator.vocab_size))
        if prefixes.parents.tokens.size(1):  # the state of the parents tells that of the children
            each = prefixes.parents.bytes() // len(prefixes.parents.tokens)
            rows = max(1, min(rows, self.max_memory // (4 * each + 1)))
        everything = torch.arange(len(prefixes))
        return prefixes.select(everything[:rows]), prefixes.select(everything[rows:])

    @contextlib.contextmanager
    def any_rows(self) -> Iterator[None]:
        """Some decoders share the source among neighbouring rows; here no two belong together."""
        shared = [model for model in self.model.models if hasattr(model, "set_beam_size")]
        for model in shared:
            model.set_beam_size(1)
        try:
            yield
        finally:
            for model in shared:
                model.set_beam_size(self.generator.beam_size)

    def expand(
        self, now: Prefixes, thresholds: List[float]
    ) -> Tuple[List[Tuple[int, List[int], List[float]]], Prefixes]:
        """One decoder call: the strings that end (sentence, tokens, log-probabilities), and the
        longer prefixes, both above the thresholds.
        """
        parents, lprobs = self._decode(now)
        least = torch.tensor(thresholds, dtype=torch.float64)[now.sentence]
        found = winners(lprobs, least - now.log_prob)
        self.expansions.index_add_(0, now.sentence, torch.ones_like(now.sentence))
        self.supports.index_add_(0, now.sentence, found.supports)
        self._book(now, found, least)
        log_prob = now.log_prob[found.row] + found.log_prob
        grown = Prefixes(parents, found.row, found.token, log_prob, now.sentence[found.row])
        ends = found.token == self.generator.eos
        finished = grown.select(ends)
        self.ended.index_add_(0, finished.sentence, finished.log_prob.exp())
        return self._finished(finished), self._affordable(grown.select(~ends))

    def _decode(self, now: Prefixes) -> Tuple[Parents, Tensor]:
        """The prefixes as parents, and the allowed log-probabilities (n, V) of what follows."""
        old, n = now.parents, len(now)
        rows = torch.arange(n)
        if n == len(old.tokens):
            # fairseq takes an order of the same length for one within sentences, and leaves the
            # keys and values of the source as they are: one row more, which nobody reads
            rows = torch.cat([rows, rows[:1]])
        parent, sentence = now.parent[rows], now.sentence[rows]
        tokens = torch.cat([old.tokens[parent], now.token[rows].unsqueeze(1)], 1)
        history = torch.cat([old.history[parent], now.log_prob[rows].unsqueeze(1)], 1)
        states = [_copy(state) for state in old.states]
        order, of = torch.stack([parent, sentence]).to(self.device)
        there = tokens.to(self.device)
        if old.tokens.size(1):
            self.model.reorder_incremental_state(states, order)
        encoder_outs = self.model.reorder_encoder_out(self.encoder_outs, of)
        lprobs, _ = self.model.forward_decoder(
            there, encoder_outs, states, self.generator.temperature
        )
        allowed = self._allowed(there[:n], lprobs[:n], of[:n])
        return Parents(states, tokens, history), allowed

    def _allowed(self, tokens: Tensor, lprobs: Tensor, sentence: Tensor) -> Tensor:
        """fairseq's limits, in the order in which its generator applies them."""
        generator, step = self.generator, tokens.size(1) - 1
        lprobs = lprobs.masked_fill(lprobs.isnan(), -math.inf)
        lprobs[:, generator.pad] = -math.inf
        lprobs[:, generator.unk] -= generator.unk_penalty
        if step >= self.longest:
            lprobs[:, : generator.eos] = -math.inf
            lprobs[:, generator.eos + 1 :] = -math.inf
        if self.prefix is not None and step < min(self.prefix.size(1), self.longest):
            forced = self.prefix[sentence, step].unsqueeze(1)
            given = lprobs.gather(1, forced)
            given = given.masked_fill(given == -math.inf, 0.0)  # the rest is conditional on it
            only = torch.full_like(lprobs, -math.inf).scatter_(1, forced, given)
            lprobs = torch.where(forced == generator.pad, lprobs, only)
        else:
            if step < generator.min_len:
                lprobs[:, generator.eos] = -math.inf
            if generator.token_indices_to_suppress is not None:
                lprobs[:, generator.token_indices_to_suppress] = -math.inf
        if generator.repeat_ngram_blocker is not None:
            lprobs = generator.repeat_ngram_blocker(tokens, lprobs, len(tokens), 1, step)
        return lprobs

    def _finished(self, ended: Prefixes) -> List[Tuple[int, List[int], List[float]]]:
        tokens = torch.cat([ended.parents.tokens[ended.parent, 1:], ended.token.unsqueeze(1)], 1)
        history = torch.cat(
            [ended.parents.history[ended.parent, 1:], ended.log_prob.unsqueeze(1)], 1
        )
        return list(zip(ended.sentence.tolist(), tokens.tolist(), history.tolist()))

    def _affordable(self, children: Prefixes) -> Prefixes:
        """The most probable children, as many as may wait in a quarter of the memory."""
        most = max(1, self.max_memory // (4 * 4 * 8))
        if len(children) <= most:
            return children
        order = children.log_prob.argsort(descending=True)
        self._give_up(children.select(order[most:]))
        return children.select(order[:most])

    def forget(self, waiting: List[Prefixes]) -> None:
        """Give up what is least probable, until the rest fits into the memory."""
        sizes = [prefixes.bytes() for prefixes in waiting]
        while len(waiting) > 1 and sum(sizes) > self.max_memory:
            worst = min(range(len(waiting)), key=lambda i: float(waiting[i].log_prob.max()))
            self._give_up(waiting.pop(worst))
            sizes.pop(worst)

    def leave_out(self, prefixes: Prefixes) -> None:
        """Book prefixes that are not continued: the largest log p, and the mass."""
        self.bound.scatter_reduce_(0, prefixes.sentence, prefixes.log_prob, "amax")
        self.pruned.index_add_(0, prefixes.sentence, prefixes.log_prob.exp())

    def _give_up(self, prefixes: Prefixes) -> None:
        """Leave out what might have won."""
        self.leave_out(prefixes)
        for sentence in prefixes.sentence.unique().tolist():
            self.gave_up[sentence] = True

    def _book(self, now: Prefixes, found: Winners, least: Tensor) -> None:
        """Next tokens that cannot win, against thresholds (n,)."""
        largest = torch.minimum(now.log_prob + found.largest_loser, least)
        self.bound.scatter_reduce_(0, now.sentence, largest, "amax")
        self.pruned.index_add_(0, now.sentence, found.lost_mass * now.log_prob.exp())

    def certificates(self) -> List[Certificate]:
        """What is known of each sentence without its list; ``mass`` is that of all ends seen."""
        books = [self.ended, self.pruned, self.bound, self.expansions, self.supports]
        return [
            Certificate(
                "exact", False, 0, False, mass, pruned, bound, n, supports / max(n, 1), None
            )
            for mass, pruned, bound, n, supports in zip(*(book.tolist() for book in books))
        ]


def _rank_within(group: Tensor) -> Tensor:
    """(n,) how many earlier entries have the same value."""
    order = group.argsort(stable=True)
    ordered = group[order].contiguous()
    places = torch.arange(len(group), device=group.device)
    rank = torch.empty_like(places)
    rank[order] = places - torch.searchsorted(ordered, ordered)
    return rank


def _copy(state: Dict[str, Any]) -> Dict[str, Any]:
    """Reordering writes into the dictionaries of a state, not into its tensors."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in state.items()}


def _tensors(states: States) -> List[Tensor]:
    values = [value for state in states for value in state.values()]
    values += [inner for value in values if isinstance(value, dict) for inner in value.values()]
    return [value for value in values if isinstance(value, Tensor)]
