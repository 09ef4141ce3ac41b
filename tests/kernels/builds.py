"""The compiled builds that this machine runs, and rows of scores that are hard for them."""

import math

import pytest
import torch

from fairseq_entmax.kernels.native import library

BROKEN = {"nan": math.nan, "inf": math.inf}


def missing(build):
    """Why a build cannot be tested here; empty if it can."""
    built = library._built()
    if build not in built:
        return f"the {build} kernels are not built"
    best = built[build].entmax_best_build()
    return "" if library.BUILDS.index(build) <= best else f"this processor lacks {build}"


def use(build, monkeypatch):
    """Make ``build`` the one that runs, until the test ends."""
    reason = missing(build)
    if reason:
        pytest.skip(reason)
    monkeypatch.setenv(library.SWITCH, build)
    library.library.cache_clear()


def rows_of_every_kind(n, dtype=torch.float32):
    """(8, n): random at three scales, peaked, tied, near-uniform, masked, and all masked."""
    torch.manual_seed(n)
    peaked, tied = torch.randn(2, n)
    peaked[n // 2] += 8
    tied = (2 * tied).round()
    masked = 3 * torch.randn(n)
    masked[1:][torch.rand(n - 1) < 0.5] = -math.inf
    rows = [torch.randn(n), 0.1 * torch.randn(n), 20 * torch.randn(n), peaked, tied]
    rows += [1e-4 * torch.randn(n), masked, torch.full((n,), -math.inf)]
    return torch.stack(rows).to(dtype)


def target_of(z):
    """Neither always the largest nor the smallest score; column 0 of every row is finite."""
    return torch.arange(len(z)) * 3 % z.shape[1] * (z[:, -1] > -math.inf)


def assert_rows_close(values, expected, limit):
    """The largest error of each row against what it may be."""
    error = (values.double() - expected).abs().amax(1)
    assert bool((error <= limit).all()), f"error {error.tolist()}, allowed {limit.tolist()}"
