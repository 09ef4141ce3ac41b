"""What a back end offers to ``functional``: a package whose functions have these signatures.

Rows z (N, V) stand with their exponents ``alpha``: one constant, float64 of shape (1, 1) in the
CPU's memory, or a tensor on z's device, (N, 1) or (1, 1), float64 on CPUs; and with ``closed``: 1.5
or 2 where all of alpha has that value, else None. Results have the type of z and
lie on its device. A row is *dead* when all its scores are -inf (its probabilities are zeros) and
*broken* when it holds a NaN or +inf (its probabilities are NaN, as softmax's would be).
"""

from typing import NamedTuple, Optional, Protocol, Tuple

import torch
from torch import Tensor

SWITCH = "FAIRSEQ_ENTMAX_KERNELS"  # "off", or the name of a build of the C kernels
NEAR_ONE = 1e-8  # softmax is off by (alpha - 1) log(p)^2 / 2: float32 precision here


def has_storage(tensor: Tensor) -> bool:
    """False for fake, batched and other tensors without memory that a kernel could read."""
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return False
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True


class SolvedRows(NamedTuple):
    """The loss of N rows, and what its gradient needs to write their probabilities again."""

    target: Tensor  # int64; -1: the row does not count
    n_kept: Tensor  # int32; nonzero probabilities kept, or -1: more than the capacity
    columns: Tensor  # int32, (N, capacity)
    values: Tensor  # (N, capacity)
    loss: Tensor  # 0 where the row does not count or is dead
    support_size: Tensor
    target_probs: Tensor
    correct: Tensor  # bool; the target's score is the largest
    tau: Tensor  # the back end's threshold; +inf: dead or does not count, NaN: broken
    largest: Tensor  # the maximum of the row


class NextTokens(NamedTuple):
    """Next words of N prefixes: some columns of entmax(W x + b), and log p of each."""

    tokens: Tensor  # int64, (N, first + k): the `first` columns, then others by falling p
    log_probs: Tensor  # (N, first + k), float; -inf where the support holds no more
    support_size: Tensor  # int64; columns with p > 0, listed or not


class NextTokenLayer(Protocol):
    """An output layer p = entmax((W x + b) / T), made ready for many steps of decoding.

    Its weights are read when it is made and must not change as long as it is used: optimisers
    write past the version counters that could tell.
    """

    def next_tokens(self, x: Tensor, first: int, k: int) -> NextTokens:
        """Of features (N, d): log p of the columns below ``first`` and of the k best others."""


class RowKernels(Protocol):
    """The mapping, its logarithm and its loss on rows of scores."""

    def takes(self, z: Tensor) -> bool:
        """Whether this back end computes with such a tensor."""

    def entmax(self, z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
        """Probabilities (N, V)."""

    def entmax_backward(
        self, probs: Tensor, grad: Tensor, alpha: Tensor, closed: Optional[float]
    ) -> Tensor:
        """The gradient of the scores from that of the probabilities."""

    def log_entmax(self, z: Tensor, alpha: Tensor, closed: Optional[float]) -> Tensor:
        """The logarithm of the probabilities, -inf where they are zero."""

    def solve_loss(
        self, z: Tensor, target: Tensor, alpha: Tensor, closed: Optional[float], capacity: int
    ) -> SolvedRows:
        """p.z + H(p) - z_y of every row; supports of up to ``capacity`` entries are kept."""

    def loss_backward(
        self,
        z: Tensor,
        alpha: Tensor,
        closed: Optional[float],
        solved: SolvedRows,
        grad: Tensor,
    ) -> Tensor:
        """The dense gradient grad (p - e_y) of the scores; grad is (N,), that of the losses."""

    def next_token_layer(
        self, weight: Tensor, bias: Optional[Tensor], alpha: float, temperature: float
    ) -> NextTokenLayer:
        """The output layer with weight (V, d) and bias (V,) for decoding."""


class SparseRows(NamedTuple):
    """A sparse matrix, compressed by rows: row i has the entries start[i] to start[i + 1]."""

    start: Tensor  # int64
    column: Tensor  # int32
    value: Tensor


class AlphaKernels(RowKernels, Protocol):
    """A back end that also differentiates by the alpha of each row, in the same pass."""

    def entmax_backward_by_alpha(
        self, probs: Tensor, grad: Tensor, alpha: Tensor
    ) -> Optional[Tuple[Tensor, Tensor]]:
        """The gradients of the scores and of alpha (N, 1); None for what it leaves to others."""


class Screen(Protocol):
    """Finds the supports of an output layer's rows without its float32 scores."""

    def solve(self, rows: slice, target: Tensor, capacity: int) -> Optional[SolvedRows]:
        """What ``solve_loss`` gives, or None where the scores are needed for it."""


class SparseGradientKernels(Protocol):
    """A back end that multiplies with sparse gradients G = p - e_y of an output layer's scores.

    ``grad_features`` has the type of the weight; a bias is written in float32.
    """

    def pack(self, solved: SolvedRows) -> SparseRows:
        """p - e_y of the rows whose support was kept; others, where there are any, are empty."""

    def grad_features(self, g: SparseRows, scale: Tensor, weight: Tensor) -> Tensor:
        """diag(scale) G W, (N, d)."""

    def grad_weight(
        self,
        g: SparseRows,
        scale: Tensor,
        features: Tensor,
        weight: Tensor,
        bias: Optional[Tensor],
        *,
        accumulate: bool,
    ) -> None:
        """weight (V, d) = G^T diag(scale) X and bias = G^T scale, or added with accumulate."""


class OutputLayerKernels(RowKernels, SparseGradientKernels, Protocol):
    """A back end for the scores of an output layer, and for their sparse gradients."""

    def screen(
        self, x: Tensor, weight: Tensor, bias: Optional[Tensor], alpha: float
    ) -> Optional[Screen]:
        """A screen for W x + b if the machine and the size of the layer make it pay."""


class DeviceLayerKernels(SparseGradientKernels, Protocol):
    """A back end that solves an output layer on a device, where no row's scores are in memory."""

    def solve_layer(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Optional[Tensor],
        target: Optional[Tensor],
        alpha: float,
        scale: float = 1.0,
    ) -> SolvedRows:
        """``solve_loss`` of scale (W x + b) for alpha in (1, 2]; -1 in ``n_kept``: the row has too
        many scores near its support, or is broken, and no other field of it holds.

        Without a target only ``n_kept``, ``columns``, ``values`` and ``support_size`` are written.
        """

    def swept_layer(
        self,
        weight: Tensor,
        bias: Optional[Tensor],
        alpha: float,
        temperature: float,
        dense: NextTokenLayer,
    ) -> NextTokenLayer:
        """The output layer for decoding, which leaves long supports to ``dense``."""
