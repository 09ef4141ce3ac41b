"""Precision that is promised and not kept."""

import warnings
from argparse import Namespace
from typing import Any

import torch
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.tasks import FairseqTask
from torch import nn

from .repairs import repair
from .wrapping import wrap


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))

    def forward(self, sample: Any) -> torch.Tensor:
        return sample @ self.weight

    def set_num_updates(self, num_updates: int) -> None:
        pass


class _Optimizer(AMPOptimizer):
    def __init__(self) -> None:
        pass

    def backward(self, loss: Any) -> None:
        pass


def _stays_in_float32() -> bool:
    def criterion(model: Any, sample: Any) -> Any:
        return model(sample), 1, {}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output, _, _ = FairseqTask(Namespace()).train_step(
            torch.zeros(1, 1), _Model(), criterion, _Optimizer(), 0
        )
    return output.dtype == torch.float32


@repair(_stays_in_float32)
def mix_precision_on_cpus() -> None:
    """Let ``--cpu --amp`` mix precision: the forward pass under autocast to bfloat16.

    Fault: the autocast that ``--amp`` enters is CUDA's, so on a CPU all stays in float32 and
    nothing is said.
    Versions: every fairseq. Test: tests/compat/test_repairs.py::test_amp_*.
    """

    def train_step(
        original: Any,
        task: Any,
        sample: Any,
        model: Any,
        criterion: Any,
        optimizer: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        def mixed(model: Any, sample: Any) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return criterion(model, sample)

        on_cpu = next(model.parameters()).device.type == "cpu"
        step = mixed if on_cpu and isinstance(optimizer, AMPOptimizer) else criterion
        return original(task, sample, model, step, optimizer, *args, **kwargs)

    wrap(FairseqTask, "train_step", train_step)
