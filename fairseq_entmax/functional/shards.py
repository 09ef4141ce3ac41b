"""A vocabulary cut into shards, one for each process, and the threshold that they find together."""

import collections
from typing import Any, List, NamedTuple, Tuple

import torch
import torch.distributed as dist
from torch import Tensor

from fairseq_entmax.kernels.choose import choose
from fairseq_entmax.kernels.plain.solver import solve_threshold

from .mapping import flatten_rows

_MOST_EXCHANGED = 1024  # candidates of a row; with more, two sums a step are exchanged instead
_STEPS = 10  # of Newton in float64, from the shards' best bound


class VocabularyShards:
    """Who holds which classes of an output layer, in the order of the processes' ranks.

    Made by all processes of ``group`` at once, each with the number of its own classes.

    Args:
        n_classes: rows of this process's part of the weight.
        device: where the layer is computed.
        group: of processes; None are all.

    Attributes:
        sizes: classes of each process. first: the first class here.
        sent: bytes that this process put into each kind of exchange so far; a ring carries about
            twice that of a sum.

    Source:
        Shoeybi et al., Megatron-LM (2019), section 3, for the layout.

    Example:
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> VocabularyShards(3).sizes
        [3]
        >>> dist.destroy_process_group()
    """

    def __init__(self, n_classes: int, device: Any = "cpu", group: Any = None) -> None:
        self.group, self.rank = group, dist.get_rank(group)
        self.sent: collections.Counter[str] = collections.Counter()
        counts = self.gathered("sizes", torch.tensor([n_classes], device=device))
        self.sizes: List[int] = torch.cat(counts).tolist()
        self.first = sum(self.sizes[: self.rank])

    @property
    def n_classes(self) -> int:
        """Classes of all processes."""
        return sum(self.sizes)

    def summed(self, kind: str, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        return self._reduced(kind, tensor, dist.ReduceOp.SUM)

    def largest(self, kind: str, tensor: Tensor) -> Tensor:
        """The maximum over all processes, in place."""
        return self._reduced(kind, tensor, dist.ReduceOp.MAX)

    def _reduced(self, kind: str, tensor: Tensor, operation: Any) -> Tensor:
        self.sent[kind] += tensor.numel() * tensor.element_size()
        dist.all_reduce(tensor, operation, group=self.group)
        return tensor

    def gathered(self, kind: str, tensor: Tensor) -> List[Tensor]:
        """The tensors of all processes, which have one shape."""
        self.sent[kind] += tensor.numel() * tensor.element_size()
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(parts, tensor.contiguous(), group=self.group)
        return parts


class Candidates(NamedTuple):
    """The classes of one shard that may have p > 0: x = (alpha - 1)(z - max z), in float64."""

    row: Tensor
    column: Tensor  # in the shard
    x: Tensor

    def sums(self, values: Tensor, n_rows: int) -> Tensor:
        """The sum of some values in each row, (N,)."""
        return values.new_zeros(n_rows).index_add_(0, self.row, values)


def find_candidates(
    scores: Tensor, alpha: float, shards: VocabularyShards
) -> Tuple[Candidates, Tensor]:
    """This shard's candidates for scores (N, V of the shard), and the maximum of each row, (N,).

    The threshold of a subset is never above that of the whole, so the highest threshold of any
    shard is a bound for all, and no class below it has a probability.
    """
    z, row_alpha, closed = flatten_rows(scores, alpha, 1, alpha)
    largest = scores.amax(1).double()
    edge = choose(z).entmax(z, row_alpha, closed).amax(1).double() ** (alpha - 1)
    bound = largest - edge / (alpha - 1) - 1e-5 * (1 + 1 / (alpha - 1))  # float32 may err
    bound, largest = shards.largest("bounds", torch.stack([bound, largest]))
    row, column = (scores > bound.unsqueeze(1)).nonzero(as_tuple=True)
    x = (alpha - 1) * (scores[row, column].double() - largest[row])
    return Candidates(row, column, x), largest


def find_threshold(
    found: Candidates, n_rows: int, alpha: float, shards: VocabularyShards
) -> Tensor:
    """tau of each row, (N,), the same in every process: with it p = [x - tau]_+^(1/(alpha - 1))."""
    sizes = torch.bincount(found.row, minlength=n_rows).int()
    counts = torch.stack(shards.gathered("counts", sizes)).long()
    few = counts.sum(0) <= _MOST_EXCHANGED
    tau = found.x.new_full((n_rows,), -1.0)
    if bool(few.any()):
        merged = _exchanged(found, counts * few, few[found.row], shards)
        closed = alpha if alpha in (1.5, 2) else None
        q = None if closed else merged.new_full((1,), 1 / (alpha - 1))
        tau[few] = solve_threshold(merged[few], closed, q).squeeze(1)
    if not bool(few.all()):
        inside = ~few[found.row]
        rest = Candidates(*(part[inside] for part in found))
        tau = torch.where(few, tau, _iterated(rest, tau, alpha, shards))
    return tau


def _exchanged(
    found: Candidates, counts: Tensor, wanted: Tensor, shards: VocabularyShards
) -> Tensor:
    """The candidates of all shards, (N, the most of a row), filled up with -inf."""
    totals = counts.sum(1).tolist()
    own = torch.nn.functional.pad(found.x[wanted], (0, max(totals) - totals[shards.rank]))
    values = shards.gathered("candidates", own.float())
    n_rows, before = counts.shape[1], counts.cumsum(0) - counts
    merged = found.x.new_full((n_rows, max(1, int(counts.sum(0).max()))), float("-inf"))
    for count, start, total, x in zip(counts, before, totals, values):
        row = torch.arange(n_rows, device=x.device).repeat_interleave(count)
        slot = torch.arange(total, device=x.device) - (count.cumsum(0) - count)[row]
        merged[row, slot + start[row]] = x[:total].double()
    return merged


def _iterated(found: Candidates, tau: Tensor, alpha: float, shards: VocabularyShards) -> Tensor:
    """Newton on the q-norm of the row, from below: it never overshoots."""
    q = 1 / (alpha - 1)
    for _ in range(_STEPS):
        d = (found.x - tau[found.row]).clamp(min=0)
        slope = (d > 0).double() if alpha == 2 else d ** (q - 1)
        both = torch.stack([found.sums(d**q, len(tau)), found.sums(slope, len(tau))])
        total, slopes = shards.summed("Newton", both)
        norm = total.clamp(min=1e-300) ** (1 / q)
        tau = tau + (norm - 1) * total / (norm * slopes.clamp(min=1e-300))
    return tau
