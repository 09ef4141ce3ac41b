"""linear_entmax_loss against entmax_loss of the scores, by every path and on every shape."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fairseq_entmax.functional import entmax_loss, linear_entmax_loss, output_layer
from fairseq_entmax.functional.loss import entmax_loss_rows
from fairseq_entmax.functional.output_layer import linear_entmax_loss_rows
from tests.functional.problems import HALF_TYPES

V, D, N = 60, 7, 23
ALPHAS = [1, 1.3, 1.5, 2, 3]
# scales of the scores: a few classes in the support, all of them, and some rows of each
SCALES = {"sparse": 12.0, "dense": 1e-3, "mixed": None}
REDUCTIONS = ["none", "sum", "mean"]
KINDS = pytest.mark.parametrize("kind", list(SCALES))


pytestmark = pytest.mark.usefixtures("path")


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of four rows of V classes; the last has three."""
    monkeypatch.setattr(output_layer, "_CHUNK_SCORES", 4 * V + 1)


@pytest.fixture
def solved(monkeypatch):
    """Records, for every chunk, whether it took the sparse path."""
    chunks, solve = [], output_layer.ChunkSolver.solve

    def spy(solver, rows):
        result = solve(solver, rows)
        chunks.append(result[1] is not None)
        return result

    monkeypatch.setattr(output_layer.ChunkSolver, "solve", spy)
    return chunks


def layer(kind="sparse", dtype=torch.float32, n=N):
    """features, weight, bias, target; by chunks of four, mixed alternates dense and sparse."""
    x, weight, bias = torch.randn(n, D), torch.randn(V, D) / D**0.5, torch.randn(V) / 4
    scale = SCALES[kind]
    if scale is None:
        scale = torch.where(torch.arange(n) // 4 % 2 == 0, 1e-3, 12.0).unsqueeze(1)
    if kind != "sparse":
        bias = bias * 1e-3
    target = torch.randint(V, (n,))
    target[::5] = (x @ weight.t()).argmax(1)[::5]
    return tuple(t.to(dtype).requires_grad_() for t in (x * scale, weight, bias)) + (target,)


def doubled(tensors):
    return [None if t is None else t.detach().double().requires_grad_() for t in tensors]


def loss_and_gradients(loss, inputs, upstream=None):
    """The loss, and the gradients of those inputs that need one."""
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    if upstream is not None:
        upstream = upstream.to(loss.dtype)
    return [loss.detach(), *torch.autograd.grad(loss, wanted, upstream)]


def unfused(x, weight, bias, target, alpha, **options):
    return entmax_loss(F.linear(x, weight, bias), target, alpha, **options)


def assert_equal_to_unfused(x, weight, bias, target, alpha, upstream=None, tol=1e-6, **options):
    fused = linear_entmax_loss(x, weight, target, alpha, bias=bias, **options)
    ours = loss_and_gradients(fused, (x, weight, bias), upstream)
    exact = doubled((x, weight, bias))
    loss = unfused(*exact, target, alpha, **options)
    theirs = loss_and_gradients(loss, exact, upstream)
    for mine, wanted in zip(ours, theirs):
        assert mine.shape == wanted.shape
        error = (mine.double() - wanted).abs().max()
        assert error <= tol * wanted.abs().max() + 1e-12, f"{error} for {wanted.abs().max()}"
    return ours


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["plain", "smooth"])
@pytest.mark.parametrize("alpha", ALPHAS)
@KINDS
def test_loss_and_gradients(small_chunks, kind, alpha, label_smoothing, reduction):
    x, weight, bias, target = layer(kind)
    upstream = torch.randn(N) if reduction == "none" else None
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    # at alpha = 3, p is a root of the score's distance to the threshold
    tol = 4e-6 if alpha == 3 else 1e-6
    assert_equal_to_unfused(x, weight, bias, target, alpha, upstream, tol, **options)


@KINDS
def test_each_kind_takes_its_path(small_chunks, solved, path, kind):
    x, weight, bias, target = layer(kind)
    linear_entmax_loss(x, weight, target, bias=bias).backward()
    expected = {"sparse": [True] * 6, "dense": [False] * 6, "mixed": [False, True] * 3}[kind]
    assert solved == ([False] * 6 if path == "torch" else expected)


@pytest.mark.parametrize("ignored", [-100, 5, "all"], ids=["-100", "a class", "all"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@KINDS
def test_ignored_targets(small_chunks, kind, reduction, ignored):
    x, weight, bias, target = layer(kind)
    index = 5 if ignored == "all" else ignored
    target[:: 1 if ignored == "all" else 3] = index
    upstream = torch.randn(N) if reduction == "none" else None
    options = {"ignore_index": index, "label_smoothing": 0.1, "reduction": reduction}
    loss, *gradients = assert_equal_to_unfused(x, weight, bias, target, 1.5, upstream, **options)
    assert not gradients[0][target == index].any()
    if ignored == "all":
        assert not any(t.any() for t in (loss, *gradients))


@pytest.mark.parametrize("needing", ["x", "w", "b", "xw", "xb", "wb"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@KINDS
def test_only_some_inputs_need_gradients(small_chunks, kind, reduction, needing):
    *tensors, target = layer(kind)
    tensors = [t.detach().requires_grad_(name in needing) for t, name in zip(tensors, "xwb")]
    fused = linear_entmax_loss(*tensors[:2], target, bias=tensors[2], reduction=reduction)
    ours = loss_and_gradients(fused, tensors, torch.ones_like(fused))
    loss = unfused(*tensors, target, 1.5, reduction=reduction)
    theirs = loss_and_gradients(loss, tensors, torch.ones_like(loss))
    assert len(ours) == len(theirs) == 1 + len(needing)
    assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@KINDS
def test_without_a_bias(small_chunks, kind):
    x, weight, _, target = layer(kind)
    assert_equal_to_unfused(x, weight, None, target, 1.5, label_smoothing=0.1)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@KINDS
def test_memory_layout_does_not_matter(small_chunks, kind, reduction):
    """Features, weight and bias stored across, as those of a transposed or sliced matrix are."""
    x, weight, bias, target = layer(kind)
    across = (x.detach().t().contiguous().t(), weight.detach().t().contiguous().t())
    strided = torch.stack([bias.detach(), bias.detach()], 1)[:, 0]
    tensors = [t.requires_grad_() for t in (*across, strided)]
    upstream = torch.randn(N) if reduction == "none" else None
    options = {"label_smoothing": 0.1, "reduction": reduction}
    assert_equal_to_unfused(*tensors, target, 1.5, upstream, **options)


@KINDS
def test_without_gradients(small_chunks, solved, kind):
    x, weight, bias, target = layer(kind)
    with torch.no_grad():
        loss = linear_entmax_loss(x, weight, target, bias=bias)
        assert_close(loss, unfused(x, weight, bias, target, 1.5))
    assert not loss.requires_grad


def test_no_gradient_is_computed_without_grad_mode(small_chunks, monkeypatch):
    x, weight, bias, target = layer("dense")
    monkeypatch.setattr(
        output_layer._Gradients, "add_dense", lambda *_: pytest.fail("not asked for")
    )
    with torch.no_grad():
        linear_entmax_loss(x, weight, target, bias=bias)


@KINDS
def test_a_tied_embedding(small_chunks, kind):
    _, weight, bias, target = layer(kind)
    words, scale = torch.randint(V, (N,)), 12.0 if kind == "sparse" else 1e-3

    def gradient(weight, bias, loss_of):
        loss = loss_of(scale * F.embedding(words, weight), weight, bias)
        return torch.autograd.grad(loss, weight)[0]

    ours = gradient(weight, bias, lambda x, w, b: linear_entmax_loss(x, w, target, bias=b))
    exact = doubled((weight, bias))
    theirs = gradient(*exact, lambda x, w, b: unfused(x, w, b, target, 1.5))
    assert_close(ours.double(), theirs, atol=1e-6 * theirs.abs().max().item(), rtol=0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_features_of_three_dimensions(small_chunks, reduction):
    x, weight, bias, target = layer(n=24)
    x = x.detach().view(3, 8, D).transpose(0, 1).requires_grad_()  # not contiguous
    target = target.view(8, 3)
    upstream = torch.randn(8, 3) if reduction == "none" else None
    assert_equal_to_unfused(x, weight, bias, target, 1.5, upstream, reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(0,), (2, 0)], ids=str)
def test_an_empty_batch(shape, reduction):
    x, weight = torch.zeros(*shape, D, requires_grad=True), layer()[1]
    target = torch.zeros(shape, dtype=torch.long)
    loss = linear_entmax_loss(x, weight, target, reduction=reduction)
    assert loss.shape == (shape if reduction == "none" else ())
    assert not loss.sum().item()
    loss.sum().backward()
    assert x.grad.shape == x.shape
    assert not weight.grad.any()


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@KINDS
def test_16_bit_inputs_are_computed_in_float32(small_chunks, kind, reduction, dtype):
    x, weight, bias, target = layer(kind, dtype)
    results = assert_equal_to_unfused(
        *(x, weight, bias, target, 1.5),
        *(torch.ones(N) if reduction == "none" else None, torch.finfo(dtype).eps),
        reduction=reduction,
    )
    assert {t.dtype for t in results} == {dtype}
    rows = linear_entmax_loss_rows(x, weight, target, bias=bias)
    assert rows.loss.dtype == torch.float32


@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 2])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck(small_chunks, reduction, alpha):
    x, weight, bias, target = layer(dtype=torch.float64, n=6)

    def loss(x, weight, bias):
        return linear_entmax_loss(x, weight, target, alpha, bias=bias, reduction=reduction)

    small = (weight.detach()[:9].requires_grad_(), bias.detach()[:9].requires_grad_())
    target %= 9
    # a second backward adds in another order
    assert torch.autograd.gradcheck(loss, (x, *small), nondet_tol=1e-14)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@KINDS
def test_the_same_bits_every_time_and_on_any_number_of_threads(kind, reduction):
    x, weight, bias, target = layer(kind, n=3000)  # above 32768 scores threads are used

    def run():
        loss = linear_entmax_loss(x, weight, target, bias=bias, reduction=reduction)
        return loss_and_gradients(loss, (x, weight, bias), torch.ones_like(loss))

    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    first, again, parallel = results
    assert all(map(torch.equal, first, again))
    if kind == "sparse":  # the order of a GEMM's sums is the BLAS library's
        assert all(map(torch.equal, first, parallel))
    assert_close(first, parallel, atol=1e-4, rtol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest memory that any operation returns."""

    n_bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.n_bytes = max(self.n_bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("reduction", ["none", "mean"])
@KINDS
def test_the_scores_of_all_rows_never_exist(small_chunks, kind, reduction):
    x, weight, bias, target = layer(kind, n=400)
    with LargestTensor() as fused:
        linear_entmax_loss(x, weight, target, bias=bias, reduction=reduction).sum().backward()
    with LargestTensor() as plain:
        unfused(x, weight, bias, target, 1.5)
    assert plain.n_bytes >= 400 * V * 4
    assert fused.n_bytes <= 400 * V * 4 / 6


@pytest.mark.parametrize("reduction", REDUCTIONS)
@KINDS
def test_backward_twice_through_a_kept_graph(small_chunks, kind, reduction):
    x, weight, bias, target = layer(kind)
    loss = linear_entmax_loss(x, weight, target, bias=bias, reduction=reduction).sum()
    first = torch.autograd.grad(loss, (x, weight, bias), torch.tensor(2.0), retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(loss, (x, weight, bias), torch.tensor(4.0))
    assert all(map(torch.equal, first, kept))
    for once, twice in zip(first, second):
        assert_close(2 * once, twice, atol=1e-5, rtol=1e-5)


@KINDS
def test_a_second_derivative_is_a_clear_error(kind):
    x, weight, bias, target = layer(kind)
    loss = linear_entmax_loss(x, weight, target, bias=bias)
    with pytest.raises(RuntimeError, match="can be differentiated once, got create_graph=True"):
        torch.autograd.grad(loss, x, create_graph=True)


@KINDS
def test_a_batch_of_gradients_is_a_clear_error(kind):
    x, weight, bias, target = layer(kind)
    loss = linear_entmax_loss(x, weight, target, bias=bias)
    with pytest.raises(RuntimeError, match="takes one gradient at a time, got a batch"):
        torch.autograd.grad(loss, x, torch.ones(3), is_grads_batched=True)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"weight": torch.zeros(V, D + 1)}, r"weight must have shape \(V, d\).*\(60, 8\)"),
        ({"weight": torch.zeros(V)}, r"weight must have shape \(V, d\)"),
        ({"bias": torch.zeros(V + 1)}, r"bias must have shape \(60,\), got \(61,\)"),
        ({"target": torch.zeros(N, 1).long()}, "target must have the shape of scores"),
        ({"target": torch.zeros(N)}, "target must be torch.int64"),
        ({"target": torch.full((N,), V)}, r"target must lie in \[0, 60\).*got 60"),
        ({"target": torch.full((N,), -1)}, r"target must lie in \[0, 60\).*got -1"),
        ({"features": torch.zeros(N, D).long()}, "must be floating point"),
        ({"alpha": 0.9}, "alpha must be finite and >= 1, got 0.9"),
        ({"alpha": torch.ones(N, 1)}, "use entmax_loss for an alpha of its own"),
        ({"alpha": torch.tensor(1.5, requires_grad=True)}, "one constant"),
        ({"label_smoothing": 1.0}, "label_smoothing must lie in"),
        ({"reduction": "average"}, "reduction must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments(change, message):
    names = ("features", "weight", "bias", "target")
    with pytest.raises(ValueError, match=message):
        linear_entmax_loss(**{**dict(zip(names, layer())), **change})


@pytest.mark.parametrize("uniform", [False, True], ids=["any", "uniform"])
@pytest.mark.parametrize("alpha", ALPHAS)
@KINDS
def test_statistics(small_chunks, kind, alpha, uniform):
    x, weight, bias, target = layer(kind)
    target[::4] = 3
    options = {"ignore_index": 3, "label_smoothing": 0.1}
    ours = linear_entmax_loss_rows(x, weight, target, alpha, bias=bias, uniform=uniform, **options)
    theirs = entmax_loss_rows(F.linear(x, weight, bias), target, alpha, **options)
    assert ours.loss.dtype == torch.float32
    assert torch.equal(ours.support_size, theirs.support_size)
    assert torch.equal(ours.correct, theirs.correct)
    assert_close(ours.loss, theirs.loss, atol=2e-5, rtol=1e-5)
    assert_close(ours.target_probs, theirs.target_probs, atol=5e-6, rtol=0)
    assert not any(column[::4].any() for column in ours)


def test_a_constant_tensor_is_an_alpha(path):
    x, weight, bias, target = layer()
    ours = linear_entmax_loss(x, weight, target, torch.tensor([2.0]), bias=bias)
    assert torch.equal(ours, linear_entmax_loss(x, weight, target, 2.0, bias=bias))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_broken_row_stays_alone(small_chunks, reduction):
    x, weight, bias, target = layer()
    with torch.no_grad():
        x[5, 0] = float("nan")
    rows = linear_entmax_loss_rows(x, weight, target, bias=bias, uniform=reduction == "mean")
    rows.loss.sum().backward()
    broken = torch.arange(N) == 5
    assert torch.equal(rows.loss.isnan(), broken)
    assert torch.equal(x.grad.isnan().any(1), broken)


def test_a_masked_class(small_chunks):
    """A bias of -inf takes the dense path, and gets no probability."""
    x, weight, bias, target = layer()
    with torch.no_grad():
        bias[7] = -float("inf")
    target[target == 7] = 8
    loss = linear_entmax_loss(x, weight, target, bias=bias)
    assert_close(loss, unfused(x, weight, bias, target, 1.5))
    loss.backward()
    assert not weight.grad[7].any()
