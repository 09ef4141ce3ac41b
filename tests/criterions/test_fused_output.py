"""The fused output layer gives the criterion the numbers of the unfused one."""

import pytest
import torch
from fairseq.distributed import ModuleProxyWrapper
from torch import nn
from torch.testing import assert_close

from fairseq_entmax.criterions import entmax_loss
from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from fairseq_entmax.functional.output_layer import sparse_gradients_run
from tests.builders import Task, batch, build, sharpen

TASK = Task()

needs_kernels = pytest.mark.skipif(
    not sparse_gradients_run(torch.zeros(1, 1)), reason="the compiled kernels are not built here"
)


def step(model, fused_output, **options):
    """Loss, logs and gradients of one forward and backward pass."""
    model.zero_grad()
    criterion = EntmaxLossCriterion(TASK, False, fused_output=fused_output, **options)
    loss, sample_size, log = criterion(model, batch(TASK))
    loss.backward()
    return loss.detach(), sample_size, log, [p.grad.clone() for p in model.parameters()]


@pytest.fixture
def calls(monkeypatch):
    """How often the fused loss runs."""
    seen = []
    fused = entmax_loss.linear_entmax_loss_rows

    def counted(*args, **kwargs):
        seen.append(args[0].shape)
        return fused(*args, **kwargs)

    monkeypatch.setattr(entmax_loss, "linear_entmax_loss_rows", counted)
    return seen


@needs_kernels
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("arch", ["transformer_entmax_tiny", "lstm_entmax"])
@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.1}, {"ignore_prefix_size": 1}],
    ids=["plain", "smoothed", "prefix"],
)
def test_fused_equals_unfused(arch, tied, options, calls):
    model = sharpen(build(arch, task=TASK, share_decoder_input_output_embed=tied))
    loss, size, log, gradients = step(model, "off", **options)
    assert not calls
    fused_loss, fused_size, fused_log, fused_gradients = step(model, "auto", **options)
    assert len(calls) == 1
    assert_close(fused_loss, loss, rtol=1e-6, atol=1e-6)
    assert fused_size == size
    assert set(fused_log) == set(log)
    for key in set(log) - {"loss"}:
        assert int(fused_log[key]) == int(log[key])
    scale = max(float(gradient.abs().max()) for gradient in gradients)
    for fused, plain in zip(fused_gradients, gradients):
        assert_close(fused, plain, rtol=1e-5, atol=1e-6 * scale)


@needs_kernels
def test_unreduced_losses_are_the_same(calls):
    model = sharpen(build("transformer_entmax_tiny", task=TASK))
    sample = batch(TASK)
    plain, fused = (
        EntmaxLossCriterion(TASK, False, fused_output=how)(model, sample, reduce=False)[0]
        for how in ("off", "auto")
    )
    assert_close(fused, plain, rtol=1e-6, atol=1e-6)


@needs_kernels
def test_softmax_is_not_fused(calls):
    step(build("transformer_entmax_tiny", task=TASK, output_alpha=1.0), "auto")
    assert not calls


class Wrapper(nn.Module):
    """What data parallel training puts around a model."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **net_input):
        return self.module(**net_input)

    def get_targets(self, sample, net_output):
        return self.module.get_targets(sample, net_output)


class FullyShardedDataParallel(Wrapper):
    pass


@needs_kernels
def test_fused_inside_a_plain_wrapper(calls):
    step(Wrapper(sharpen(build("transformer_entmax_tiny", task=TASK))), "auto")
    assert len(calls) == 1


@pytest.fixture(scope="module")
def process_group(tmp_path_factory):
    """Data parallel training of one process: torch's hooks on the gradients run all the same."""
    store = tmp_path_factory.mktemp("store") / "ranks"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


# fairseq hands a model on the CPU to it with a list of GPUs, so no command line gets here
@needs_kernels
@pytest.mark.parametrize("watched", [False, True], ids=["plain", "find_unused_parameters"])
@pytest.mark.parametrize("arch", ["transformer_entmax_tiny", "lstm_entmax"])
def test_inside_torch_ddp(arch, watched, calls, process_group):
    model = sharpen(build(arch, task=TASK, share_decoder_input_output_embed=True))
    loss, _, _, gradients = step(model, "off")
    parallel = ModuleProxyWrapper(
        torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=watched)
    )
    for _ in range(2):  # the second step finds the buckets of the first
        parallel_loss, _, _, parallel_gradients = step(parallel, "auto")
    assert len(calls) == (0 if watched else 2)
    assert_close(parallel_loss, loss, rtol=1e-6, atol=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in gradients)
    for ours, plain in zip(parallel_gradients, gradients):
        assert_close(ours, plain, rtol=1e-5, atol=1e-6 * scale)


@needs_kernels
@pytest.mark.parametrize("how", ["watched", "sharded"])
def test_not_fused_where_a_wrapper_minds(how, calls):
    model = sharpen(build("transformer_entmax_tiny", task=TASK))
    wrapper = FullyShardedDataParallel(model) if how == "sharded" else Wrapper(model)
    wrapper.find_unused_parameters = how == "watched"
    step(wrapper, "auto")
    assert not calls
