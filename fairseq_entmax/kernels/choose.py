"""Which back end computes: the first that takes the tensors; plain torch takes all.

Plain torch serves CPUs and what is solved in float64; ``triton`` serves GPUs, and ``device`` all
other accelerators: there, to look at a value is to wait for it.
"""

from typing import Optional, Tuple

from torch import Tensor

from . import device, native, plain, triton
from .contract import AlphaKernels, DeviceLayerKernels, OutputLayerKernels, RowKernels

BACK_ENDS: Tuple[RowKernels, ...] = (native, triton, device, plain)


def choose(*tensors: Tensor) -> RowKernels:
    """The back end for a computation with all of these tensors."""
    return next(b for b in BACK_ENDS if all(b.takes(tensor) for tensor in tensors))


def choose_alpha(*tensors: Tensor) -> Optional[AlphaKernels]:
    """The back end for the gradient of alpha with these tensors, if there is one."""
    return native if choose(*tensors) is native else None


def choose_differentiable(*tensors: Tensor) -> RowKernels:
    """The back end whose ``entmax_backward`` has a derivative of its own."""
    return device if all(device.takes(tensor) for tensor in tensors) else plain


def choose_output_layer(x: Tensor) -> Optional[OutputLayerKernels]:
    """The back end for sparse gradients of an output layer with such features, if there is one."""
    return native if choose(x) is native else None


def choose_device_layer(x: Tensor, weight: Tensor) -> Optional[DeviceLayerKernels]:
    """The back end that sweeps the classes of such an output layer, if there is one."""
    return triton if triton.takes_layer(x, weight) else None
