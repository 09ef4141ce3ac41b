"""Rows that the kernels are tried with: every kernel, type and kind of alpha, on few rows."""

import math
from typing import Any, Dict, NamedTuple, Optional

import torch
from torch import Tensor

from tests.kernels.builds import rows_of_every_kind, target_of


class Case(NamedTuple):
    """What one row of ``CASES`` computes."""

    kernel: str  # short, resident, streamed
    columns: int
    alpha: float
    dtype: torch.dtype = torch.float32
    by_row: bool = False  # alpha comes as a tensor
    capacity: int = 64
    few: bool = True  # not all kinds of rows

    def scores(self) -> Tensor:
        """(rows, columns), of every kind, one of -inf and two broken ones."""
        broken = torch.randn(2, self.columns)
        broken[0, 3], broken[1, 5] = math.nan, math.inf
        rows = rows_of_every_kind(self.columns)[3 if self.few else 0 :: 3 if self.few else 1]
        return torch.cat([rows, torch.full((1, self.columns), -math.inf), broken]).to(self.dtype)

    def target(self) -> Tensor:
        """The answer to each row; the second does not count."""
        target = target_of(self.scores())
        target[1] = -1
        return target

    def grad(self) -> Tensor:
        """The gradient of the probabilities, (rows, columns)."""
        z = self.scores()
        return torch.linspace(-1, 1, z.numel()).sin().view_as(z).to(self.dtype)

    def exponent(self) -> Dict[str, Any]:
        """The arguments ``alpha`` and ``closed`` of the contract."""
        closed: Optional[float] = None if self.by_row else self.alpha
        n = len(self.scores()) if self.by_row else 1
        alpha = torch.full((n, 1), self.alpha, dtype=torch.float64)
        return {"alpha": alpha, "closed": closed if closed in (1.5, 2.0) else None}


KERNELS = {"short": (17, 16), "resident": (1024, 1000), "streamed": (512, 600)}
SIXTEEN_BITS = {"bf16": torch.bfloat16, "fp16": torch.float16}
CASES = {
    **{f"{kernel}-1.5": Case(kernel, KERNELS[kernel][0], 1.5, few=False) for kernel in KERNELS},
    **{f"{kernel}-1.2": Case(kernel, KERNELS[kernel][1], 1.2) for kernel in KERNELS},
    **{f"{kernel}-odd": Case(kernel, KERNELS[kernel][1], 1.5) for kernel in KERNELS},
    **{f"{kernel}-2": Case(kernel, KERNELS[kernel][1], 2.0) for kernel in KERNELS},
    **{
        f"{kernel}-{name}": Case(kernel, KERNELS[kernel][0], 1.5, dtype)
        for kernel in KERNELS
        for name, dtype in SIXTEEN_BITS.items()
    },
    **{
        f"{kernel}-by-row": Case(kernel, KERNELS[kernel][0], 1.3, by_row=True) for kernel in KERNELS
    },
    **{f"{kernel}-near-1": Case(kernel, KERNELS[kernel][0], 1 + 1e-6) for kernel in KERNELS},
    "streamed-nothing-fits": Case("streamed", 600, 1.5, capacity=1),
    "streamed-nothing-fits-1.2": Case("streamed", 512, 1.2, capacity=1),
}
