"""Faults in fairseq's mixed precision."""

from typing import Any

import torch
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.tasks import FairseqTask

from .repairs import repair, wrap


@repair()
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
