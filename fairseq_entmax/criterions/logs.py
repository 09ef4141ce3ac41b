"""What criterions log, added up over workers and brought to the host."""

from typing import Any, Dict, Iterable, List

import torch
from torch import Tensor


def totals(logging_outputs: List[Dict[str, Any]], keys: Iterable[str]) -> Dict[str, Any]:
    """The sum of each of these values, 0 where none logs it; one transfer brings all of them.

    Example::

        >>> totals([{"loss": torch.tensor(2.5)}, {"loss": torch.tensor(1.5)}], ("loss", "total"))
        {'loss': 4.0, 'total': 0}
    """
    sums = {key: sum(log.get(key, 0) for log in logging_outputs) for key in keys}
    on_device = {key: value for key, value in sums.items() if isinstance(value, Tensor)}
    if on_device:
        # float64 holds every count, and every sum in float32, as it is
        numbers = torch.stack([value.double() for value in on_device.values()]).tolist()
        for (key, value), number in zip(on_device.items(), numbers):
            sums[key] = number if value.is_floating_point() else int(number)
    return sums
