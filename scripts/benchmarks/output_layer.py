"""A whole training step of the output layer: projection, loss and both gradients."""

import os
from typing import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Row, relative_error, run_all
from fairseq_entmax.functional import linear_entmax_loss, reference

SCREENING = "FAIRSEQ_ENTMAX_SCREENING"


def output_layer(quick: bool, runs: int) -> Iterator[Row]:
    return run_all(output_layer_cases(quick), runs)


# gain of the weight that gives about this support with random features
OUTPUT_LAYERS = {
    10000: {"support ~50": 0.65, "support ~500": 0.16, "full support": 1e-3},
    32000: {"support ~50": 0.7},
}


def output_layer_cases(quick: bool) -> Iterator[Case]:
    n, d = (512, 256) if quick else (2048, 512)
    for v, gains in OUTPUT_LAYERS.items():
        for kind, gain in gains.items():
            for screening in ("off", "on"):
                yield _output_layer(n, d, v, kind, gain, screening)


def _output_layer(n: int, d: int, v: int, kind: str, gain: float, screening: str) -> Case:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g).requires_grad_()
    weight = (torch.randn(v, d, generator=g) * gain / d**0.5).requires_grad_()
    y = torch.randint(v, (n,), generator=g)

    def forget() -> None:
        x.grad = weight.grad = None

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        forget()
        loss(x, weight).backward()

    def ours() -> None:
        os.environ[SCREENING] = screening
        step(lambda x, weight: linear_entmax_loss(x, weight, y, 1.5))

    def peer() -> None:
        step(lambda x, weight: F.cross_entropy(F.linear(x, weight), y))

    def gate() -> float:
        ours()
        few = x.detach()[:32].double()
        p = reference.entmax(few @ weight.detach().double().t(), 1.5)
        p[torch.arange(len(few)), y[: len(few)]] -= 1
        return relative_error(x.grad[: len(few)], p @ weight.detach().double() / n)

    how = "float32" if screening == "off" else "screened"
    name = f"N={n} d={d} V={v} {kind}, {how}"
    return Case("output-layer", name, "F.cross_entropy(F.linear)", ours, peer, gate, 1e-5, forget)
