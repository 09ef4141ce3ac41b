"""Which back end computes: the first that takes the tensors; plain torch takes all."""

from typing import Optional, Tuple

from torch import Tensor

from . import native, plain
from .contract import AlphaKernels, OutputLayerKernels, RowKernels

# a back end for GPUs would stand before plain, and be imported when first asked for
BACK_ENDS: Tuple[RowKernels, ...] = (native, plain)


def choose(*tensors: Tensor) -> RowKernels:
    """The back end for a computation with all of these tensors."""
    return next(b for b in BACK_ENDS if all(b.takes(tensor) for tensor in tensors))


def choose_alpha(*tensors: Tensor) -> Optional[AlphaKernels]:
    """The back end for the gradient of alpha with these tensors, if there is one."""
    return native if choose(*tensors) is native else None


def choose_output_layer(x: Tensor) -> Optional[OutputLayerKernels]:
    """The back end for sparse gradients of an output layer with such features, if there is one."""
    return native if choose(x) is native else None
