"""Data parallel training by processes on CPUs."""

import os
import socket
from typing import Any

import torch
from fairseq.distributed import utils as distributed
from fairseq.models import distributed_fairseq_model

from .repairs import repair
from .wrapping import words_of, wrap

_TORCHRUN = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")


def _counts_gpus() -> bool:
    return "cpu" not in words_of(distributed.call_main)


@repair(_counts_gpus)
def start_processes_on_cpus() -> None:
    """Let ``fairseq-train --cpu --distributed-world-size 2`` train with two processes, by gloo.

    Fault: as many processes are started as there are GPUs; without one that is ``AssertionError:
    world size is 2 but have 0 available devices``, under torchrun a ZeroDivisionError, and with
    ``--distributed-init-method`` exit code 0 and no training.
    Versions: every fairseq. Test: tests/cli/test_distributed.py::test_*.
    """

    def call_main(original: Any, cfg: Any, main: Any, **kwargs: Any) -> Any:
        options = cfg.distributed_training
        launched = all(name in os.environ for name in _TORCHRUN)
        if not cfg.common.cpu or (options.distributed_world_size == 1 and not launched):
            return original(cfg, main, **kwargs)
        if options.distributed_backend == "nccl":  # the default, for GPUs alone
            options.distributed_backend = "gloo"
        if launched and options.distributed_init_method is None:
            options.distributed_init_method, options.distributed_no_spawn = "env://", True
            options.distributed_world_size = int(os.environ["WORLD_SIZE"])
            options.distributed_rank = int(os.environ["RANK"])
        if options.distributed_no_spawn:
            return original(cfg, main, **kwargs)
        return _spawn(cfg, main, kwargs)

    wrap(distributed, "call_main", call_main)


def _spawn(cfg: Any, main: Any, kwargs: Any) -> None:
    options = cfg.distributed_training
    if options.distributed_rank > 0:
        raise ValueError(
            f"--cpu --distributed-rank {options.distributed_rank}: start each process with "
            "--distributed-no-spawn, or all of them with rank 0"
        )
    if options.distributed_init_method is None:
        port = options.distributed_port if options.distributed_port > 0 else _free_port()
        options.distributed_init_method = f"tcp://localhost:{port}"
    options.distributed_rank = None  # each process is given its own
    torch.multiprocessing.spawn(
        distributed.distributed_main,
        args=(main, cfg, {**kwargs, "start_rank": 0}),
        nprocs=options.distributed_world_size,
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def _names_a_gpu() -> bool:
    # a mended fairseq would ask the device for its type
    words = words_of(distributed_fairseq_model.DistributedFairseqModel)
    wrapped = hasattr(distributed_fairseq_model.DistributedDataParallel, "__wrapped__")
    return "type" not in words and not wrapped


@repair(_names_a_gpu)
def wrap_models_on_cpus() -> None:
    """Let ``--ddp-backend pytorch_ddp``, the default, wrap a model on a CPU.

    Fault: torch's DistributedDataParallel is told of GPU 0, which it refuses for such a model.
    Versions: every fairseq. Test: tests/cli/test_distributed.py::test_*.
    """

    def DistributedDataParallel(original: Any, module: Any, *args: Any, **kwargs: Any) -> Any:
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            kwargs.update(device_ids=None, output_device=None)
        return original(module, *args, **kwargs)

    wrap(distributed_fairseq_model, "DistributedDataParallel", DistributedDataParallel)
