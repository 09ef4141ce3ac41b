"""16-bit training with fairseq's own optimizers: parameters stay narrow, the loss is right."""

import math

import pytest
import torch
from fairseq.optim.fp16_optimizer import FP16Optimizer, MemoryEfficientFP16Optimizer
from omegaconf import OmegaConf

from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from tests.builders import Task, batch, build

TASK = Task()
MODES = {  # flags: (type of the parameters, fairseq's optimizer)
    "--fp16": (torch.float16, FP16Optimizer),
    "--bf16": (torch.bfloat16, FP16Optimizer),
    "--memory-efficient-fp16": (torch.float16, MemoryEfficientFP16Optimizer),
    "--memory-efficient-bf16": (torch.bfloat16, MemoryEfficientFP16Optimizer),
}
ARCHS = {
    "both sparse": {"output_alpha": 1.5, "attention_alpha": 1.5},
    "learned": {"output_alpha": 1.3, "attention_alpha": 1.5, "learn_attention_alpha": True},
}


def optimizer_of(mode, model, scale=4.0):
    dtype, kind = MODES[mode]
    common = {
        "fp16": dtype == torch.float16,
        "bf16": dtype == torch.bfloat16,
        "fp16_init_scale": scale,
        "fp16_scale_window": 100,
        "fp16_scale_tolerance": 0.0,
        "min_loss_scale": 1e-4,
        "threshold_loss_scale": None,
        "fp16_no_flatten_grads": dtype == torch.float16,  # flat ones need a GPU, says fairseq
        "tpu": False,
    }
    adam = {"_name": "adam", "lr": [0.01], "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-6}
    cfg = OmegaConf.create(
        {
            "common": common,
            "optimization": {"update_freq": [1], "lr": [0.01]},
            "distributed_training": {"distributed_world_size": 1},
            "optimizer": {**adam, "weight_decay": 0.0, "use_old_adam": True, "tpu": False},
        }
    )
    return kind.build_optimizer(cfg, list(model.parameters()))


def built(flags):
    torch.manual_seed(5)
    return build("transformer_entmax", task=TASK, dropout=0.0, **flags).train()


def update(model, optimizer, criterion):
    """One update as fairseq's trainer does it; returns the mean loss of a token."""
    optimizer.zero_grad()
    loss, sample_size, _ = criterion(model, batch(TASK))
    optimizer.backward(loss)
    optimizer.multiply_grads(1 / sample_size)
    optimizer.clip_grad_norm(0.0)
    optimizer.step()
    return float(loss.detach()) / sample_size


@pytest.mark.parametrize("flags", list(ARCHS))
@pytest.mark.parametrize("mode", list(MODES))
def test_updates_follow_those_of_float32(mode, flags):
    criterion = EntmaxLossCriterion(TASK, False, label_smoothing=0.1)
    wide = built(ARCHS[flags])
    adam = torch.optim.Adam(wide.parameters(), lr=0.01, betas=(0.9, 0.98), eps=1e-6)
    expected = []
    for _ in range(4):
        adam.zero_grad()
        loss, sample_size, _ = criterion(wide, batch(TASK))
        (loss / sample_size).backward()
        adam.step()
        expected.append(float(loss.detach()) / sample_size)
    narrow = built(ARCHS[flags]).to(MODES[mode][0])
    optimizer = optimizer_of(mode, narrow)
    found = [update(narrow, optimizer, criterion) for _ in range(4)]
    assert found == pytest.approx(expected, rel=0.05)
    assert expected[-1] < 0.9 * expected[0]  # they moved
    assert {p.dtype for p in narrow.parameters()} == {MODES[mode][0]}


@pytest.mark.parametrize("mode", ["--fp16", "--memory-efficient-fp16"])
def test_a_scale_that_overflows_is_halved_and_the_update_left_out(mode):
    model = built(ARCHS["both sparse"]).half()
    optimizer = optimizer_of(mode, model, scale=2.0**24)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(OverflowError, match="setting loss scale to"):
        update(model, optimizer, EntmaxLossCriterion(TASK, False))
    assert optimizer.scaler.loss_scale == 2.0**23
    for parameter, old in zip(model.parameters(), before):
        assert torch.equal(parameter, old)


def error_of_gradients(flags, criterion, dtype):
    """|g - g'| / |g| over all parameters, g in float32 and g' in 16 bits from the same numbers."""
    grads = []
    for kind in (torch.float32, dtype):
        model = built(flags)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype).to(kind)
        loss, sample_size, _ = criterion(model.to(kind), batch(TASK))
        assert math.isfinite(loss)
        (loss / sample_size).backward()
        grads.append(torch.cat([p.grad.float().flatten() for p in model.parameters()]))
    return float((grads[1] - grads[0]).norm() / grads[0].norm())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_are_off_by_a_few_roundings(dtype):
    for flags in ARCHS.values():
        error = error_of_gradients(flags, EntmaxLossCriterion(TASK, False), dtype)
        assert error < 16 * torch.finfo(dtype).eps
