"""Who starts the processes of a data parallel training on CPUs, and with which settings."""

from argparse import Namespace

import pytest
import torch
from fairseq.distributed import utils as distributed

import fairseq_entmax  # noqa: F401  what is under test


@pytest.fixture
def called(monkeypatch):
    """What fairseq was told to run, and in how many processes."""
    calls = []
    monkeypatch.setattr(
        torch.multiprocessing, "spawn", lambda fn, args, nprocs: calls.append((fn, args, nprocs))
    )
    monkeypatch.setattr(
        distributed, "distributed_main", lambda i, main, cfg, kwargs: calls.append((main, cfg, i))
    )
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    return calls


def config(cpu=True, **changes):
    options = {
        **{"distributed_world_size": 2, "distributed_rank": 0, "distributed_backend": "nccl"},
        **{"distributed_init_method": None, "distributed_port": -1, "device_id": 0},
        **{"distributed_no_spawn": False, "pipeline_model_parallel": False, "tpu": False},
    }
    common = Namespace(cpu=cpu, tpu=False)
    return Namespace(common=common, distributed_training=Namespace(**{**options, **changes}))


def main(cfg, **kwargs):
    raise AssertionError("run in this process")


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({}, "tcp://localhost:"),
        ({"distributed_port": 23456}, "tcp://localhost:23456"),
        ({"distributed_init_method": "file:///shared/store"}, "file:///shared/store"),
    ],
)
def test_as_many_processes_as_asked_for(called, given, method):
    cfg = config(**given)
    distributed.call_main(cfg, main, extra=1)
    ((function, arguments, n_processes),) = called
    assert function is distributed.distributed_main and n_processes == 2
    assert arguments == (main, cfg, {"extra": 1, "start_rank": 0})
    options = cfg.distributed_training
    assert options.distributed_backend == "gloo" and options.distributed_rank is None
    assert options.distributed_init_method.startswith(method)


def test_torchrun_has_started_them(called, monkeypatch):
    launched = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "WORLD_SIZE": "3", "RANK": "2"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    cfg = config(distributed_world_size=1)
    distributed.call_main(cfg, main)
    assert called == [(main, cfg, 0)]
    options = cfg.distributed_training
    assert (options.distributed_rank, options.distributed_world_size) == (2, 3)
    assert options.distributed_init_method == "env://"


def test_a_rank_of_its_own_needs_a_command_of_its_own(called):
    with pytest.raises(ValueError, match=r"--distributed-rank 1: .*--distributed-no-spawn"):
        distributed.call_main(config(distributed_rank=1), main)
    cfg = config(distributed_rank=1, distributed_no_spawn=True, distributed_init_method="tcp://a:1")
    distributed.call_main(cfg, main)
    assert called == [(main, cfg, 0)]


def test_gpus_and_single_processes_are_left_to_fairseq(called):
    ran = []
    distributed.call_main(config(distributed_world_size=1), lambda cfg: ran.append(cfg))
    assert len(ran) == 1 and not called
    if not torch.cuda.is_available():
        with pytest.raises(AssertionError, match="have 0 available devices"):
            distributed.call_main(config(cpu=False), main)
