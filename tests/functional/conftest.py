"""Runs a test once for each path that its scores can take."""

import pytest
import torch

from fairseq_entmax.kernels import choose, native, plain


def compiled_run():
    return choose.choose(torch.zeros(1, 1)) is native


def _use(path, monkeypatch):
    if path == "torch":
        monkeypatch.setattr(choose, "BACK_ENDS", (plain,))
    elif not compiled_run():
        pytest.skip("the compiled kernels are not there or switched off")


@pytest.fixture(params=["compiled", "torch"])
def path(request, monkeypatch):
    """For float32 and 16-bit scores."""
    _use(request.param, monkeypatch)
    return request.param


@pytest.fixture
def each_path(monkeypatch):
    """Like ``path``, in a loop, for tests that spend their time on the oracle."""

    def switch():
        if compiled_run():
            yield "compiled"
        with monkeypatch.context() as patched:
            _use("torch", patched)
            yield "torch"

    return switch


@pytest.fixture(params=["compiled-float32", "torch-float32", "torch-float64"])
def float_type(request, monkeypatch):
    """For scores of the type that it returns."""
    path, name = request.param.split("-")
    _use(path, monkeypatch)
    return getattr(torch, name)
