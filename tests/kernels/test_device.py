"""On an accelerator nothing waits for the host, nothing is float64, and the numbers are right."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, entmax_loss, linear_entmax_loss, log_entmax, reference
from fairseq_entmax.functional.mapping import entmax_learned
from fairseq_entmax.kernels import device
from tests.kernels.builds import rows_of_every_kind, target_of
from tests.pretend_device import DeviceTensor, PretendDevice, to_device

ALPHAS = [1, 1.2, 1.5, 1.9, 2]


@pytest.fixture
def there():
    with PretendDevice() as pretended:
        yield pretended
    assert not pretended.waits, pretended.waits
    assert not pretended.float64, pretended.float64


@pytest.mark.parametrize("n", [17, 1000])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_mapping(there, alpha, n):
    z = rows_of_every_kind(n)
    on_device = to_device(z.clone().requires_grad_())
    probs = entmax(on_device, alpha)
    weights = torch.randn(z.shape)
    (probs * to_device(weights)).sum().backward()
    log_probs = log_entmax(on_device, alpha)
    assert_close(probs.data_on_cpu, reference.entmax(z, alpha).float(), atol=2e-6, rtol=0)
    assert_close(log_probs.data_on_cpu.exp(), probs.data_on_cpu.detach(), atol=1e-6, rtol=0)
    here = z.clone().requires_grad_()
    (entmax(here, alpha) * weights).sum().backward()
    assert_close(on_device.grad.data_on_cpu, here.grad, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_loss(there, alpha, smoothing):
    z, y = rows_of_every_kind(600), target_of(rows_of_every_kind(600))
    on_device = to_device(z.clone().requires_grad_())
    options = {"ignore_index": int(y[1]), "label_smoothing": smoothing, "reduction": "sum"}
    loss = entmax_loss(on_device, to_device(y), alpha, **options)
    loss.backward()
    here = z.clone().requires_grad_()
    expected = entmax_loss(here, y, alpha, **options)
    expected.backward()
    assert_close(loss.data_on_cpu, expected, atol=1e-5, rtol=1e-6)
    assert_close(on_device.grad.data_on_cpu, here.grad, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("alpha", [1.3, 1.5])
def test_output_layer(there, alpha):
    tensors = (torch.randn(6, 8), torch.randn(40, 8), torch.randn(40), torch.arange(6))
    results = []
    for move in (lambda x: x, to_device):
        x, weight, bias, y = (move(t.clone()) for t in tensors)
        for t in (x, weight, bias):
            t.requires_grad_()
        loss = linear_entmax_loss(x, weight, y, alpha, bias=bias, label_smoothing=0.1)
        loss.backward()
        results.append([loss, x.grad, weight.grad, bias.grad])
    for expected, result in zip(*results):
        assert_close(result.data_on_cpu, expected, atol=2e-6, rtol=1e-5)


def test_learned_alphas(there):
    z, alpha = torch.randn(4, 3, 9), torch.tensor([1.001, 1.4, 1.99])[:, None]
    grads = []
    for move in (lambda x: x, to_device):
        scores, learned = move(z.clone()).requires_grad_(), move(alpha.clone()).requires_grad_()
        (entmax_learned(scores, learned) * move(torch.arange(9.0).sin())).sum().backward()
        grads.append((scores.grad, learned.grad))
    for expected, result in zip(*grads):
        assert_close(result.data_on_cpu, expected, atol=3e-6, rtol=1e-5)


def test_above_two_is_solved_in_float64():
    z = torch.randn(4, 9)
    with PretendDevice() as pretended:
        probs = entmax(to_device(z), 3)
    assert pretended.float64 and pretended.waits  # and so the counters do count
    assert probs.dtype == torch.float32
    assert_close(probs.data_on_cpu, reference.entmax(z, 3).float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "wait",
    [
        lambda z: z.sum().item(),
        lambda z: bool(z.sum() > 0),
        lambda z: z.tolist(),
        lambda z: z.cpu(),
        lambda z: z.nonzero(),
        lambda z: z[z > 0],
    ],
    ids=["item", "bool", "tolist", "cpu", "nonzero", "mask as index"],
)
def test_every_wait_is_counted(wait):
    with PretendDevice() as pretended:
        z = to_device(torch.randn(3, 4))
        assert not pretended.waits
        wait(z)
    assert sum(pretended.waits.values()) == 1


def test_devices_do_not_mix():
    with PretendDevice(), pytest.raises(RuntimeError, match="a tensor of the CPU among those"):
        to_device(torch.ones(3)) + torch.ones(3)


def test_a_wrong_target_is_an_error():
    with PretendDevice(), pytest.raises(RuntimeError):
        entmax_loss(to_device(torch.randn(2, 3)), to_device(torch.tensor([0, 3])))


# ---- the fixed number of steps


def hard_rows(n):
    """Rows for which Newton needs many steps: supports that shrink little by little."""
    place = torch.arange(n).float()
    rows = [-place / n, -3 * place / n, -(place + 1).log(), -0.1 * (place + 1).sqrt()]
    rows += [-c * (1 - b**-place) for c in (1, 1.9) for b in (1.5, 2.0)]
    rows += [-c * (1 - (place + 1) ** -b) for c in (1, 2) for b in (0.5, 1, 2)]
    for distance in (1e-3, 0.1, 0.5, 0.9, 0.99, 0.999, 1.9, 1.99, 1.999):
        one = torch.full((n,), -distance)
        one[n // 3] = 0
        rows += [one, one + 1e-3 * torch.rand(n) * one]
    return torch.stack(rows)


@pytest.mark.parametrize("n", [2, 63, 511, 512, 5003])
@pytest.mark.parametrize("alpha", [1.5, 2, 1.0000001, 1.01, 1.3, 1.9, 1.99])
def test_steps_are_enough(alpha, n):
    z = hard_rows(n)
    closed = float(alpha) if alpha in (1.5, 2) else None
    probs = device.entmax(z, torch.full((1, 1), alpha, dtype=torch.float64), closed)
    expected = reference.entmax(z, alpha).float()
    assert_close(probs, expected, atol=1e-6, rtol=0)
    assert_close(probs.double().sum(1), torch.ones(len(z)).double(), atol=1e-6, rtol=0)


# ---- tensors without memory


@pytest.mark.parametrize("alpha", [1.3, 1.5])
def test_meta_and_fake_tensors(alpha):
    def shapes(z, y):
        return [t.shape for t in (entmax(z, alpha), entmax_loss(z, y, alpha, reduction="none"))]

    z, y = torch.randn(2, 3), torch.tensor([0, 1])
    assert shapes(z.to("meta"), y.to("meta")) == [(2, 3), (2,)]
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(z)
        assert entmax(fake, alpha).shape == (2, 3)
        assert device.takes(fake)


def test_a_device_is_known_by_its_tensors():
    assert not device.takes(torch.zeros(1, 3))
    assert not device.takes(torch.zeros(1, 3, dtype=torch.float64, device="meta"))
    with PretendDevice():
        assert device.takes(DeviceTensor(torch.zeros(1, 3)))
    assert math.isnan(device.entmax(torch.full((1, 3), math.inf), torch.ones(1, 1), None)[0, 0])
