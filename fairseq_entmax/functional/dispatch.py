"""Which implementation runs: the compiled kernels where they are, else plain torch."""

from typing import Any, Optional

from torch import Tensor

try:
    from fairseq_entmax.kernels import native
except ImportError:  # the package works without its kernels
    native = None  # type: ignore[assignment]


def compiled(z: Tensor) -> Optional[Any]:
    """The compiled kernels if they take these scores, else None."""
    return native if native is not None and native.usable(z) else None
