"""Two processes with half of the sentences each compute what one does with all of them."""

import pytest
import torch
from torch.testing import assert_close

from tests.processes import run_module

from .two_processes import BACKENDS, MODELS, half, model_and_batch, step


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two processes")
    run_module("tests.criterions.two_processes", folder)
    return torch.load(str(folder / "found.pt"), weights_only=True)


@pytest.mark.parametrize("backend", BACKENDS, ids=["ddp", "ddp-find-unused", "legacy"])
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_are_those_of_one_process(found, name, backend):
    model, sample = model_and_batch(name)
    loss = step(model, sample)
    loss_of_both, gradients = found[(name, *backend)]
    assert loss_of_both == pytest.approx(loss, rel=1e-9)
    alone = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == alone.keys()
    for parameter, gradient in alone.items():
        assert_close(gradients[parameter], gradient, rtol=1e-7, atol=1e-8, msg=parameter)


def test_each_half_is_another_problem():
    """Or a process that works on the wrong sentences would not be seen."""
    of_half = []
    for rank in (0, 1):
        model, sample = model_and_batch("transformer")
        step(model, half(sample, rank))
        of_half.append(model.decoder.embed_tokens.weight.grad)
    assert (of_half[0] - of_half[1]).abs().max() > 0.1
