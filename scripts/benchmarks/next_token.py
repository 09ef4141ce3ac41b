"""One step of decoding: from the decoder's features to the best words of every beam."""

from typing import Iterator, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Row, run_all
from fairseq_entmax.functional import next_token_layer, reference

BEAM, SPECIAL = 5, 4
GAIN = 2.0  # of weights and features drawn at random: a support of about a dozen words
SUPPORT = (4, 40)  # what is outside is refused


def next_token(quick: bool, runs: int) -> Iterator[Row]:
    return run_all(cases(quick), runs)


def cases(quick: bool) -> Iterator[Case]:
    for v in (10000,) if quick else (10000, 32000):
        for n in (40, 160) if quick else (5, 40, 160, 640):
            yield _step(n, 512, v)


def _step(n: int, d: int, v: int) -> Case:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g)
    weight = torch.randn(v, d, generator=g) * GAIN / d**0.5
    layer = next_token_layer(weight)

    def ours() -> Tuple[Tensor, Tensor, Tensor]:
        return layer.next_tokens(x, SPECIAL, 2 * BEAM)

    def peer() -> Tensor:
        return F.log_softmax(F.linear(x, weight), -1).view(-1, BEAM * v).topk(2 * BEAM)

    def gate() -> float:
        found = ours()
        support = float(found[2].float().mean())
        if not SUPPORT[0] <= support <= SUPPORT[1]:
            raise SystemExit(f"next-token: the mean support is {support:.1f}, outside {SUPPORT}")
        few = reference.entmax(x[:8].double() @ weight.double().t(), 1.5)
        best = few[:, SPECIAL:].topk(2 * BEAM).values
        expected = torch.cat([few[:, :SPECIAL], best], 1)
        named = few.gather(1, found[0][:8]) - expected
        return float(max(named.abs().max(), (found[1][:8].exp() - expected).abs().max()))

    name, stock = f"N={n} d={d} V={v}", "linear, log_softmax, topk"
    return Case("next-token", name, stock, ours, peer, gate, 1e-5)
