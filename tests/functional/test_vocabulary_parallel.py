"""Processes that hold parts of the vocabulary compute what one does that holds all of it."""

import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close

from fairseq_entmax.functional import (
    VocabularyShards,
    linear_entmax_loss,
    vocabulary_parallel_entmax_loss,
)
from tests.processes import run_module

from .shard_processes import CASES, WORLDS, problem

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    run_module("tests.functional.shard_processes", folder)
    return {n: torch.load(str(folder / f"{n}.pt"), weights_only=True) for n in WORLDS}


def alone(name):
    """(loss, gradients of x, W and b) of one process, in float64."""
    *tensors, y, options = problem(name)
    x, weight, bias = (t.double().requires_grad_() for t in tensors)
    loss = linear_entmax_loss(x, weight, y, bias=bias, **options)
    results = (loss, *torch.autograd.grad(loss, (x, weight, bias)))
    return [t.detach().float() for t in results]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", list(CASES))
def test_equals_one_process(found, name, world):
    for value, expected in zip(found[world][name], alone(name)):
        scale = max(1.0, float(expected.abs().max()))
        assert_close(value, expected, atol=1e-6 * scale, rtol=0)


@pytest.mark.parametrize("world", WORLDS)
def test_few_bytes_are_sent(found, world):
    x, weight, *_ = problem("many")
    *_, sent = found[world]["many"]
    assert "Newton" not in sent
    assert sent.pop("gradient of features") == x.numel() * 4
    # the scores of the smaller shards would be 4 V N / world bytes and more
    assert 50 * sum(sent.values()) < 4 * len(weight) * len(x) / world


def test_full_support_is_summed_not_sent(found):
    for world in WORLDS:
        sent = found[world]["full support"][-1]
        assert sent["Newton"] == 10 * 2 * 3 * 8  # steps x sums x rows x float64
        assert "candidates" not in sent
        assert {"Newton", "candidates"} <= set(found[world]["both"][-1])


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield VocabularyShards(6)
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.0}, r"alpha must lie in \(1, 2\] where the vocabulary is cut, got 1.0"),
        ({"alpha": 2.5}, "got 2.5"),
        ({"weight": torch.zeros(5, 3)}, r"weight must have shape \(6, 3\)"),
        ({"target": torch.tensor([0, 6])}, r"target must lie in \[0, 6\).*got 6"),
        ({"target": torch.tensor([0])}, "target must be torch.int64 of shape"),
        ({"bias": torch.zeros(3)}, "bias must have shape"),
    ],
)
def test_wrong_arguments(one_process, change, message):
    arguments = {
        "features": torch.randn(2, 3),
        "weight": torch.randn(6, 3),
        "target": torch.tensor([0, 5]),
        "shards": one_process,
    }
    with pytest.raises(ValueError, match=message):
        vocabulary_parallel_entmax_loss(**{**arguments, **change})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(one_process, dtype):
    x, w = (torch.randn(n, 3).to(dtype).requires_grad_() for n in (2, 6))
    y = torch.tensor([0, 5])
    found = vocabulary_parallel_entmax_loss(x, w, y, one_process)
    expected = linear_entmax_loss(x, w, y)
    assert found.dtype == dtype
    assert_close(found, expected)
    for grad, other in zip(*(torch.autograd.grad(loss, (x, w)) for loss in (found, expected))):
        assert_close(grad, other)
