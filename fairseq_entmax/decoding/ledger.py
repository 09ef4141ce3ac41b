"""The books of a beam search: what it finished, what it dropped, and when nothing can win."""

import math
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor

from .certificate import Certificate, Objective, lower, upper

Candidates = Tuple[Tensor, Tensor, Tensor]


class BeamLedger:
    """Follows fairseq's beam search over one batch.

    fairseq continues the ``beam`` best candidates that do not end, and finishes those that end
    among the ``beam`` best, until a sentence has ``beam`` of them. Everything else is dropped.

    Args:
        nbest: a sentence ends when no living prefix can enter its ``nbest`` best. 0: never.
        certify: also account for what is dropped, which costs a pass over the probabilities.
    """

    rows: Tensor  # sentences still at work

    def __init__(self, objective: Objective, eos: int, unk: int, nbest: int, certify: bool) -> None:
        self.objective, self.eos, self.unk = objective, eos, unk
        self.nbest, self.certify = nbest, certify

    def keep(self, batch_idxs: Tensor) -> None:
        """fairseq goes on with these sentences of the batch only."""
        self.rows = self.rows[batch_idxs]

    def step(self, step: int, lprobs: Tensor, history: Tensor, found: Candidates) -> Candidates:
        """Book one step; returns the candidates, of which a sentence that is over keeps none but
        those that end.

        Args:
            lprobs: (bsz, beam, V), as the search saw them; ``history``: (bsz, beam, step).
            found: the candidates' scores, tokens and beams, (bsz, candidates) each.
        """
        if step == 0:
            self._open(lprobs)
        scores, tokens, beams = found
        beam = lprobs.size(1)
        alive, ends = scores > -math.inf, tokens == self.eos
        ended = alive & ends
        ended[:, beam:] = False
        room = beam - self.n_finished[self.rows]
        ended &= ended.cumsum(1) <= room.unsqueeze(1)
        living = alive & ~ends
        living &= living.cumsum(1) <= beam
        self.n_finished[self.rows] += ended.sum(1)
        over = self.n_finished[self.rows] == beam
        if self.nbest:
            over |= self._hopeless(step, scores, ended, living)
        living &= ~over.unsqueeze(1)
        if self.certify:
            self._book_dropped(step, lprobs, history, found, ended | living)
        closed = over.unsqueeze(1) & ~ended
        return scores.masked_fill(closed, -math.inf), tokens.masked_fill(closed, self.unk), beams

    def _open(self, lprobs: Tensor) -> None:
        n = lprobs.size(0)
        double: Dict[str, Any] = {"dtype": torch.float64, "device": lprobs.device}
        self.eps = torch.finfo(lprobs.dtype).eps
        self.rows = torch.arange(n, device=lprobs.device)
        self.n_finished = torch.zeros_like(self.rows)
        # a sentence that has as many strings as the beam is wide ends in any case
        most = min(max(self.nbest, 1), lprobs.size(1))
        self.best = torch.full((n, most), -math.inf, **double)
        self.log_bound = torch.full((n,), -math.inf, **double)
        self.score_bound = torch.full((n,), -math.inf, **double)
        self.pruned = torch.zeros(n, **double)
        self.expansions = torch.zeros_like(self.rows)
        self.supports = torch.zeros_like(self.rows)
        self.empty = lprobs[:, 0, self.eos].double()

    def _hopeless(self, step: int, scores: Tensor, ended: Tensor, living: Tensor) -> Tensor:
        """Where the best living prefix cannot beat the worst of the n best."""
        finished = scores.double().masked_fill(~ended, -math.inf)
        finished = self.objective.score(finished, step + 1)
        best = torch.cat([self.best[self.rows], finished], 1).topk(self.best.size(1)).values
        self.best[self.rows] = best
        hope = scores.double().masked_fill(~living, -math.inf).amax(1)
        return self.objective.bound(hope, step + 2) <= best[:, -1]

    def _book_dropped(
        self, step: int, lprobs: Tensor, history: Tensor, found: Candidates, kept: Tensor
    ) -> None:
        """Every expansion that is not kept: the largest, and the mass of all."""
        if step == 0:
            total, open_rows = lprobs[:, :1], torch.ones_like(lprobs[:, :1, 0], dtype=torch.bool)
        else:
            total = lprobs + history[:, :, -1:]
            open_rows = history[:, :, -1] > -math.inf
        support = ((lprobs[:, : total.size(1)] > -math.inf).sum(2) * open_rows).sum(1)
        self.expansions[self.rows] += open_rows.sum(1)
        self.supports[self.rows] += support
        _, tokens, beams = found
        cells = beams * lprobs.size(2) + tokens
        # several candidates may name one cell: where one of them is kept, it is not dropped
        taken = torch.full_like(found[0], math.inf).masked_fill(kept, -math.inf)
        flat = total.reshape(len(total), -1).scatter_reduce(1, cells, taken, "amin")
        largest = upper(flat.amax(1).double(), step + 1, self.eps)
        scores = self.objective.bound(largest, step + 1)
        rows = self.rows
        self.log_bound[rows] = torch.maximum(self.log_bound[rows], largest)
        self.score_bound[rows] = torch.maximum(self.score_bound[rows], scores)
        self.pruned[rows] += flat.exp().sum(1).double()

    def certificates(self, sentences: List[List[Dict[str, Any]]]) -> List[Certificate]:
        """One for each sentence of the batch and its hypotheses, best first."""
        books = [self.log_bound, self.score_bound, self.pruned, self.expansions, self.supports]
        rows = torch.stack([book.double() for book in (*books, self.empty)], 1).tolist()
        everything = [h for hypotheses in sentences for h in hypotheses]
        sums = torch.stack([h["positional_scores"].double().sum() for h in everything])
        scores = torch.stack([h["score"] for h in everything])
        numbers = iter(torch.stack([scores.double(), sums], 1).tolist())
        return [
            self._certificate(
                [(len(h["positional_scores"]), *next(numbers)) for h in hypotheses], *row
            )
            for hypotheses, row in zip(sentences, rows)
        ]

    def _certificate(
        self,
        hypotheses: List[Tuple[int, float, float]],
        log_bound: float,
        score_bound: float,
        pruned: float,
        expansions: float,
        supports: float,
        empty: float,
    ) -> Certificate:
        """``hypotheses``: the length, score and log p of each."""
        real = [(length, log_prob) for length, score, log_prob in hypotheses if score > -math.inf]
        lengths, log_probs = [length for length, _ in real], [log_prob for _, log_prob in real]
        least = [lower(p, length, self.eps) for p, length in zip(log_probs, lengths)]
        nothing_dropped = log_bound == -math.inf
        first = self.objective.score(least[0], lengths[0]) if real else -math.inf
        return Certificate(
            search="beam",
            exact=nothing_dropped or (bool(real) and first >= score_bound),
            proven=sum(p >= log_bound for p in least),
            complete=nothing_dropped,
            mass=math.fsum(map(math.exp, log_probs)),
            pruned=pruned,
            bound=log_bound,
            expansions=int(expansions),
            support=supports / max(expansions, 1),
            empty=math.exp(empty),
        )
