"""Scores that the tests of functional share, and slopes to compare derivatives with."""

import torch
from torch.testing import assert_close

from fairseq_entmax.functional import entmax, entmax_loss, reference

ALPHAS = [1, 1.3, 1.5, 2, 2.5, 3]
# alpha tensors take the general path at every value, also at 1.5 and 2
TENSOR_ALPHAS = [1.0001, 1.01, 1.3, 1.5, 1.9, 2.2, 3.0]
LONG = 600  # from 512 entries on, only candidates for the support are solved
HALF_TYPES = [torch.float16, torch.bfloat16]


def sparse_scores(*shape):
    """Scores whose distributions hold zeros and keep their support under nudges of 1e-3."""
    while True:
        z = 1.5 * torch.randn(shape, dtype=torch.float64)
        nudged = [entmax(z + d * torch.randn_like(z), a) > 0 for a in ALPHAS[1:] for d in (0, 1e-3)]
        same = all(torch.equal(p, q) for p, q in zip(nudged[::2], nudged[1::2]))
        if same and not nudged[0].all():
            return z.requires_grad_()


def long_scores(n_rows):
    """Rows with a support of a few dozen entries, of which one lies in the last, partial group."""
    z = torch.randn(n_rows, LONG, dtype=torch.float64)
    z[:, ::40] += 4
    z[:, -1] += 4
    return z.requires_grad_()


def as_tensor(alpha, *shape):
    return torch.full(shape, alpha, dtype=torch.float64, requires_grad=True)


def jacobian_product(z, weights, alpha):
    jacobian = reference.entmax_jacobian(reference.entmax(z, alpha), alpha)
    return (jacobian @ weights.double().unsqueeze(-1)).squeeze(-1)


def slope(function, x, step=1e-6):
    return (function(x + step) - function(x - step)) / (2 * step)


def slope_from_the_right(function, alpha):
    """The derivative where alpha - step may lie below 1; h and h / 2 cancel the first error."""
    # the oracle divides by alpha - 1 and has no digits to spare between 1 and 1 + 1e-6
    start = 1.0 if alpha < 1 + 1e-6 else alpha
    coarse, fine = ((function(start + h) - function(start)) / h for h in (2e-4, 1e-4))
    return 2 * fine - coarse


def random_problem(n_rows, n_classes, scale=3.0, dtype=torch.float64):
    z = scale * torch.randn(n_rows, n_classes, dtype=dtype)
    return z, torch.randint(n_classes, (n_rows,))


def close_to_float32(values, expected):
    assert_close(values.double(), expected, atol=1e-6, rtol=1e-6)


def loss_and_gradient(z, y, alpha, **options):
    z = z.detach().requires_grad_()
    loss = entmax_loss(z, y, alpha, **options)
    loss.sum().backward()
    return loss.detach(), z.grad


def row_errors(probs, expected):
    """The largest error in each row, in units of the row's peak."""
    return (probs.double() - expected).abs().amax(-1) / expected.amax(-1)
