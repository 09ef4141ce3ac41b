"""One node in a graph for a computation on rows: compiled, exported, transformed, as eager."""

import shutil

import pytest
import torch
from fairseq.modules import MultiheadAttention
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, entmax_loss, linear_entmax_loss, log_entmax, reference
from fairseq_entmax.functional.mapping import entmax_learned
from fairseq_entmax.kernels import operators
from fairseq_entmax.modules.multihead_attention import EntmaxMultiheadAttention

pytestmark = pytest.mark.skipif(
    not operators.AVAILABLE, reason="torch.library.register_vmap came with torch 2.5"
)
OPTIONS = {"ignore_index": 2, "label_smoothing": 0.1, "reduction": "sum"}
Y = torch.tensor([0, 4, 2, 8])


def constant(alpha):
    return torch.full((1, 1), alpha, dtype=torch.float64)


def rows_of(n=9, dtype=torch.float32):
    torch.manual_seed(3)
    z = 2 * torch.randn(4, n, dtype=dtype)
    z[0, 3], z[1] = -torch.inf, -torch.inf
    return z


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=False)


def with_gradients(function, *inputs):
    """The result, and the gradients of all inputs."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    result = function(*inputs)
    weights = torch.arange(1.0, result.numel() + 1, dtype=result.dtype).sin().view(result.shape)
    return (result, *torch.autograd.grad((result * weights).sum(), inputs))


FUNCTIONS = {
    "entmax 1.5": (lambda z: entmax(z, 1.5), rows_of()),
    "entmax 1.3, columns": (lambda z: entmax(z, 1.3, 0), rows_of()),
    "entmax 3": (lambda z: entmax(z, 3.0), rows_of()),
    "entmax 1": (lambda z: entmax(z, 1), rows_of()),
    "float64": (lambda z: entmax(z, 1.7), rows_of(dtype=torch.float64)),
    "bfloat16": (lambda z: entmax(z, 1.5), rows_of(dtype=torch.bfloat16)),
    "loss 1.5": (lambda z: entmax_loss(z, Y, 1.5, **OPTIONS), rows_of()),
    "loss 1.3": (lambda z: entmax_loss(z, Y, 1.3, ignore_index=2, reduction="none"), rows_of()),
    "loss 1": (lambda z: entmax_loss(z, Y, 1, **OPTIONS), rows_of()),
    "loss of a long row": (lambda z: entmax_loss(z, Y, 1.2), rows_of(600) / 8),
    "alphas": (
        lambda z, a: entmax_learned(z, a),
        rows_of(),
        torch.tensor([1.2, 1.5, 1.99, 1.01])[:, None],
    ),
    "loss by alpha": (
        lambda z, a: entmax_loss(z, Y, a, ignore_index=2),
        rows_of(),
        torch.tensor([1.2, 1.5, 1.9, 1.1])[:, None],
    ),
    "output layer": (
        lambda x, w, b: linear_entmax_loss(x, w, Y, 1.5, bias=b, **OPTIONS),
        torch.randn(4, 3),
        torch.randn(9, 3),
        torch.randn(9),
    ),
}


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_a_full_graph_computes_what_eager_computes(name):
    function, *inputs = FUNCTIONS[name]
    found = with_gradients(compiled(function), *inputs)
    for value, expected in zip(found, with_gradients(function, *inputs)):
        assert value.dtype == expected.dtype
        assert_close(value, expected, atol=2e-6, rtol=1e-5, equal_nan=True)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a compiler")
def test_the_code_of_inductor_calls_the_operator(monkeypatch):
    monkeypatch.undo()  # inductor relies on torch.empty being what it is
    function = torch.compile(lambda z: entmax(z * 2, 1.5) + 1, fullgraph=True)
    expected = reference.entmax(rows_of() * 2, 1.5).float() + 1
    assert_close(function(rows_of()), expected, atol=1e-6, rtol=0)


def test_logarithm():
    z = rows_of()
    assert_close(compiled(lambda z: log_entmax(z, 1.5))(z), log_entmax(z, 1.5))


def test_a_wrong_target_is_said_when_the_graph_runs():
    function = compiled(lambda z, y: entmax_loss(z, y, 1.5, ignore_index=-100))
    for wrong in (9, -1):
        with pytest.raises(ValueError, match=r"target must lie in \[0, 9\)"):
            function(rows_of(), torch.tensor([0, wrong, 2, 3]))


# ---- export


class Mapping(torch.nn.Module):
    def forward(self, z):
        return entmax(z, 1.5)


class Loss(torch.nn.Module):
    def forward(self, z, y):
        return entmax_loss(z, y, 1.5)


class Attention(torch.nn.Module):
    def __init__(self, learn):
        super().__init__()
        stock = MultiheadAttention(8, 2, self_attention=True)
        self.inner = EntmaxMultiheadAttention.from_stock(stock, 1.5, learn_alpha=learn)

    def forward(self, x):
        return self.inner(x, x, x)


EXPORTED = {
    "mapping": (Mapping, lambda n: (torch.randn(n, 9),), 0),
    "loss": (Loss, lambda n: (torch.randn(n, 9), torch.arange(n)), 0),
    "attention": (lambda: Attention(False), lambda n: (torch.randn(5, n, 8),), 1),
    "learned": (lambda: Attention(True), lambda n: (torch.randn(5, n, 8),), 1),
}


@pytest.mark.parametrize("name", list(EXPORTED))
def test_export_for_batches_of_any_size(name):
    make, inputs_of, dim = EXPORTED[name]
    model, batch = make().eval(), torch.export.Dim("batch", min=2, max=64)
    inputs = inputs_of(4)
    shapes = tuple({dim: batch} for _ in inputs)
    exported = torch.export.export(model, inputs, dynamic_shapes=shapes)
    names = {str(node.target) for node in exported.graph.nodes}
    assert any(name.startswith("fairseq_entmax.") for name in names), names
    others = inputs_of(7)
    assert_close(exported.module()(*others), model(*others), atol=1e-6, rtol=0)


@pytest.mark.parametrize("learn", [False, True])
def test_attention_is_one_graph(learn):
    model = Attention(learn)
    x = torch.randn(5, 3, 8)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad, name
    grads = []
    for function in (model, compiled(model)):
        loss = function(x)[0].square().sum()
        grads.append(torch.autograd.grad(loss, list(model.parameters())))
    for found, expected in zip(*grads):
        assert_close(found, expected, atol=1e-5, rtol=1e-4)


# ---- torch.func


def test_vmap_is_more_rows():
    z = torch.randn(5, 4, 9)
    assert_close(torch.vmap(lambda z: entmax(z, 1.5))(z), entmax(z, 1.5))
    assert_close(torch.vmap(lambda z: entmax(z, 1.3), 1, 1)(z), entmax(z, 1.3))
    assert_close(torch.vmap(lambda z: log_entmax(z, 1.5))(z), log_entmax(z, 1.5))
    y = torch.randint(0, 9, (5, 4))
    losses = torch.vmap(lambda z, y: entmax_loss(z, y, 1.5, reduction="none"))(z, y)
    assert_close(losses, entmax_loss(z, y, 1.5, reduction="none"))


@pytest.mark.parametrize("batched", ["z", "alpha", "both"])
def test_vmap_over_alphas(batched):
    z, alpha = torch.randn(3, 4, 9), torch.rand(3, 4, 1) + 1
    dims = (None if batched == "alpha" else 0, None if batched == "z" else 0)
    arguments = [t[0] if d is None else t for t, d in zip((z, alpha), dims)]
    found = torch.vmap(entmax_learned, dims)(*arguments)
    assert_close(found, entmax_learned(*(t.expand(3, *t.shape[-2:]) for t in arguments)))


def test_a_gradient_for_each_example():
    z, weight = torch.randn(6, 9), torch.randn(9, 9)
    y = torch.arange(6)
    for loss in (
        lambda w, z, y: entmax_loss(z @ w.t(), y, 1.5),
        lambda w, z, y: linear_entmax_loss(z, w, y, 1.5, label_smoothing=0.1),
    ):
        found = torch.vmap(torch.func.grad(loss), (None, 0, 0))(weight, z, y)
        for i in range(6):
            w = weight.clone().requires_grad_()
            loss(w, z[i], y[i]).backward()
            assert_close(found[i], w.grad, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("alpha", [1.3, 1.5])
def test_jacobians_and_hessians(alpha):
    z, y = torch.randn(3, 5), torch.tensor([0, 4, 2])
    jacobian = torch.func.jacrev(lambda z: entmax(z, alpha))(z)
    expected = torch.autograd.functional.jacobian(lambda z: entmax(z, alpha), z)
    assert_close(jacobian, expected, atol=1e-6, rtol=1e-5)

    def loss(z):
        return entmax_loss(z, y, alpha)

    hessian = torch.func.jacrev(torch.func.jacrev(loss))(z)
    assert_close(hessian, torch.autograd.functional.hessian(loss, z), atol=1e-6, rtol=1e-5)


def test_forward_mode_is_refused_in_a_sentence():
    for function in (lambda z: entmax(z, 1.5), lambda z: entmax_loss(z, Y, 1.5)):
        with pytest.raises(NotImplementedError, match="forward mode AD"):
            torch.func.jacfwd(function)(torch.randn(4, 9))


# ---- the operators themselves


def arguments_of(name, alpha, dtype, by_rows):
    z = rows_of(dtype=dtype).requires_grad_()
    closed = alpha if alpha == 1.5 and not by_rows else None
    exponents = (constant(alpha).expand(4, 1).clone() if by_rows else constant(alpha), closed)
    y = torch.tensor([0, 4, -1, 8])
    if name == "entmax_backward":
        return (entmax(z, alpha).detach(), torch.randn_like(z), *exponents)
    if name == "solve_loss":
        return (z, y, *exponents, 5)
    if name == "loss_backward":
        solved = operators.solve_loss(z.detach(), y, *exponents, 5)
        return (z.detach(), torch.rand(4), y, solved, *exponents)
    return (z, *exponents) if name == "entmax" else (z.detach(), *exponents)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["entmax", "log_entmax", "entmax_backward", "loss_backward"])
def test_opcheck(name, dtype):
    for alpha, by_rows in ((1.5, False), (1.3, True)):
        arguments = arguments_of(name, alpha, dtype, by_rows)
        torch.library.opcheck(getattr(operators, name), arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck_of_the_loss(dtype):
    # gradients of the statistics do not exist: autograd is compared in the full graphs above
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    arguments = arguments_of("solve_loss", 1.5, dtype, False)
    torch.library.opcheck(operators.solve_loss, arguments, test_utils=checks)


def test_shapes_and_types_without_memory():
    z = rows_of(600)
    arguments = (z, Y, constant(1.3), None, 512)
    solved = operators.solve_loss(*arguments)
    on_meta = operators.solve_loss(*(t.to("meta") for t in arguments[:3]), None, 512)
    with FakeTensorMode() as mode:
        fake = operators.solve_loss(*map(mode.from_tensor, arguments[:3]), None, 512)
    # on meta tau is what an accelerator's is
    for i, (real, one, other) in enumerate(zip(solved, on_meta, fake)):
        assert real.shape == one.shape == other.shape
        assert real.dtype == other.dtype
        assert one.dtype == (torch.float32 if i == 7 else real.dtype)
