"""Triton's kernels agree with the definition, in Triton's interpreter, which needs no GPU."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_entmax.functional import reference
from tests.processes import run_module

from .cases import CASES

pytest.importorskip("triton", reason="Triton is missing: pip install triton")

BROKEN = slice(-2, None)
DEAD = -1  # of the others
# 16-bit results are rounded once, and the interpreter cuts bfloat16 off
TOLERANCE = {torch.float32: 5e-7, torch.bfloat16: 2**-8 + 1e-6, torch.float16: 2**-12 + 1e-6}
OF_LOSS = [name for name, case in CASES.items() if case.kernel == "streamed"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    run_module("tests.kernels.triton.interpreted", folder)
    return torch.load(str(folder / "found.pt"), weights_only=True)


def expected_of(case):
    """The probabilities by definition, of the rows that are not broken."""
    return reference.entmax(case.scores()[: BROKEN.start], case.alpha)


@pytest.mark.parametrize("name", CASES)
def test_mapping(found, name):
    case, results = CASES[name], found[name]
    probs, log_probs = results["probs"], results["log_probs"]
    assert probs.dtype == log_probs.dtype == case.dtype
    whole = probs[: BROKEN.start]
    assert_close(whole.double(), expected_of(case), atol=TOLERANCE[case.dtype], rtol=0)
    assert not whole[DEAD].any()
    assert probs[BROKEN].isnan().all() and log_probs[BROKEN].isnan().all()
    assert_close(log_probs[: BROKEN.start].double().exp(), expected_of(case), atol=2e-2, rtol=0)
    if case.dtype == torch.float32:
        assert_close(log_probs[: BROKEN.start], whole.log(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_backward(found, name):
    case, result = CASES[name], found[name]["backward"]
    probs = found[name]["probs"][: BROKEN.start].double()
    jacobian = reference.entmax_jacobian(probs, case.alpha)
    grad = case.grad()[: BROKEN.start].double()
    expected = (jacobian @ grad.unsqueeze(-1)).squeeze(-1).nan_to_num()  # dead rows: zeros
    limit = 2 * TOLERANCE[case.dtype]
    assert_close(result[: BROKEN.start].double(), expected, atol=limit, rtol=limit)
    assert result[BROKEN].isnan().any(1).all()


@pytest.mark.parametrize("name", OF_LOSS)
def test_loss(found, name):
    case, results = CASES[name], found[name]
    z, y = case.scores()[: BROKEN.start], case.target()[: BROKEN.start]
    counts = (y >= 0) & (z > -math.inf).any(1)
    probs = expected_of(case) * counts.unsqueeze(1)
    rows = counts.nonzero().squeeze(1)
    loss = torch.zeros(len(z), dtype=torch.float64)
    loss[rows] = reference.entmax_loss(z[rows], y[rows], case.alpha)
    gold = probs.gather(1, y.clamp(min=0).unsqueeze(1)).squeeze(1)
    assert_close(results["loss"][: BROKEN.start].double(), loss, atol=2e-6, rtol=2e-6)
    assert_close(results["target_probs"][: BROKEN.start].double(), gold, atol=1e-6, rtol=0)
    largest = z.double().argmax(1)
    assert (results["correct"][: BROKEN.start][rows] == (largest == y)[rows]).all()
    for broken in ("loss", "target_probs", "tau"):
        assert results[broken][BROKEN].isnan().all()
    assert (results["tau"][: BROKEN.start][~counts] == math.inf).all()


@pytest.mark.parametrize("name", OF_LOSS)
def test_kept_entries_are_the_support(found, name):
    case, results = CASES[name], found[name]
    probs = expected_of(case)
    for row, (size, kept) in enumerate(zip(results["support_size"], results["n_kept"])):
        assert kept == (size if size <= case.capacity else -1)
        if kept > 0:
            columns, values = (results[key][row, :kept] for key in ("columns", "values"))
            assert columns.tolist() == sorted(set(columns.tolist()))
            assert_close(values.double(), probs[row, columns.long()], atol=5e-7, rtol=0)


@pytest.mark.parametrize("name", OF_LOSS)
def test_gradient_of_loss(found, name):
    case, results = CASES[name], found[name]
    z, y = case.scores()[: BROKEN.start], case.target()[: BROKEN.start]
    counts = (y >= 0) & (z > -math.inf).any(1)
    one_hot = torch.zeros(z.shape, dtype=torch.float64)
    one_hot.scatter_(1, y.clamp(min=0).unsqueeze(1), 1.0)
    scale = torch.arange(1.0, len(z) + 1, dtype=torch.float64) * counts
    expected = (expected_of(case) - one_hot) * scale.unsqueeze(1)
    gradient = results["gradient"]
    limit = 2 * TOLERANCE[case.dtype]
    assert_close(gradient[: BROKEN.start].double(), expected, atol=10 * limit, rtol=limit)
    assert gradient[BROKEN].isnan().all()
