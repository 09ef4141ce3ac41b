"""A device that this machine has not: its tensors compute on the CPU, and every wait is counted.

A :class:`DeviceTensor` says it lies on another device, and keeps its numbers on the CPU. Under a
:class:`PretendDevice` every operation on such tensors is done with these numbers, and written down
if it would make the host wait (a value read, an operation whose result's size depends on values, a
copy to the CPU) or compute in float64. Mixing the devices is an error, as it is on a real one.
"""

import collections
import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")  # the one other device that autograd knows in every build
CPU = torch.device("cpu")
aten = torch.ops.aten
# sizes that depend on values, or values themselves
WAITS = {
    aten._local_scalar_dense: "item",
    aten.nonzero: "nonzero",
    aten.masked_select: "masked_select",
    aten.is_nonzero: "bool",
    aten.equal: "equal",
    aten._unique2: "unique",
    aten.unique_dim: "unique",
}


class DeviceTensor(torch.Tensor):
    """Numbers on the CPU that claim to be elsewhere."""

    @staticmethod
    def __new__(cls, data):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            data.shape,
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            layout=data.layout,
            device=DEVICE,
        )

    def __init__(self, data):
        self.data_on_cpu = data

    def __repr__(self, **_):
        return f"DeviceTensor({self.data_on_cpu})"

    def tolist(self):
        return self.to(CPU).tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError(f"{function} of a device tensor outside of its device")


class PretendDevice(TorchDispatchMode):
    """Counts in ``waits`` and ``float64``, by the name of the operation."""

    def __init__(self):
        super().__init__()
        self.waits, self.float64 = collections.Counter(), collections.Counter()

    @contextlib.contextmanager
    def free(self):
        """What happens inside does not count."""
        before = self.waits.copy(), self.float64.copy()
        yield
        self.waits, self.float64 = before

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        flat, _ = tree_flatten((args, kwargs))
        here = [x for x in flat if isinstance(x, DeviceTensor)]
        to = kwargs.get("device")
        if not here and not (to is not None and torch.device(to) == DEVICE):
            return function(*args, **kwargs)
        leaves = function in (aten._to_copy.default,) and to is not None and _is_cpu(to)
        strangers = [
            x for x in flat if type(x) is torch.Tensor and x.dim() and x.device.type == "cpu"
        ]
        packet = function.overloadpacket
        if here and strangers and packet is not aten.copy_ and "index" not in str(packet):
            raise RuntimeError(f"{packet}: a tensor of the CPU among those of the device")
        self._count(packet, leaves, flat)
        if to is not None:
            kwargs["device"] = CPU
        result = function(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if packet in WAITS and packet is not aten.nonzero and not isinstance(result, torch.Tensor):
            return result
        if leaves:
            return result
        return _same_or_wrapped(result, here)

    def _count(self, packet, leaves, flat):
        if packet in WAITS:
            self.waits[WAITS[packet]] += 1
        elif leaves:
            self.waits["to cpu"] += 1
        elif packet in (aten.index, aten.index_put, aten.index_put_, aten.index_put_):
            tensors = [x for x in flat if isinstance(x, torch.Tensor)]
            if any(x.dtype in (torch.bool, torch.uint8) for x in tensors[1:]):
                self.waits["mask as index"] += 1
        if any(isinstance(x, DeviceTensor) and x.dtype == torch.float64 for x in flat):
            self.float64[str(packet)] += 1


def _is_cpu(device):
    return torch.device(device).type == "cpu"


def _inner(x):
    return x.data_on_cpu if isinstance(x, DeviceTensor) else x


def _same_or_wrapped(result, inputs):
    """The tensors of a result; one that was written into stays the object it was."""
    known = {id(x.data_on_cpu): x for x in inputs}

    def wrap(x):
        if not isinstance(x, torch.Tensor):
            return x
        return known.get(id(x)) if id(x) in known else DeviceTensor(x)

    return tree_map(wrap, result)


def to_device(x):
    """A tensor, or all tensors of lists and dictionaries, on the pretended device."""

    def moved(t):
        if not isinstance(t, torch.Tensor):
            return t
        return DeviceTensor(t.detach().clone()).requires_grad_(t.requires_grad)

    return tree_map(moved, x)


def module_to_device(module):
    """All parameters and buffers of a module, in place."""
    for inner in module.modules():
        for name, parameter in inner._parameters.items():
            if parameter is not None:
                moved = DeviceTensor(parameter.detach().clone())
                inner._parameters[name] = torch.nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in inner._buffers.items():
            if buffer is not None:
                inner._buffers[name] = DeviceTensor(buffer.detach().clone())
    return module
