"""What every attention of a model looks at while it writes one string."""

from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn

from fairseq_entmax.modules.attentions import has_temperature
from fairseq_entmax.modules.sparsify import Place, attention_places
from fairseq_entmax.modules.two_headed_attention import TwoHeadedAttention

KINDS = ("cross", "encoder", "decoder")


class Weights(NamedTuple):
    """The weights of one attention layer.

    Attributes:
        kind: ``cross``, ``encoder`` or ``decoder`` (both self-attention).
        layer: counted from 1.
        heads: their names.
        probs: (heads, rows, columns); rows attend to columns, and each sums to 1 or is 0.
        gate: of a two-headed attention, (rows, heads): how much each head counts.
    """

    kind: str
    layer: int
    heads: List[str]
    probs: Tensor
    gate: Optional[Tensor] = None

    def head(self, number: Optional[int]) -> Tensor:
        """(rows, columns) of one head, counted from 1; their mean where none is named, by the gate
        if there is one.

        Raises:
            ValueError: there is no such head.
        """
        if number is None and self.gate is not None:
            return torch.einsum("th,hts->ts", self.gate, self.probs)
        if number is None:
            return self.probs.mean(0)
        if not 1 <= number <= len(self.heads):
            raise ValueError(
                f"{self.kind} attention of layer {self.layer} has heads 1 to {len(self.heads)}, "
                f"got {number}"
            )
        return self.probs[number - 1]


@torch.no_grad()
def attention_weights(models: Sequence[nn.Module], sample: Any, target: Tensor) -> List[Weights]:
    """Every attention of a model while it reads a sentence and writes ``target``.

    Args:
        models: one, or an ensemble of the same shape, of which the mean is returned.
        sample: a batch of one sentence; see :meth:`.opened.Opened.sample`.
        target: the tokens written, EOS last, (tgt_len,).

    Raises:
        ValueError: a model without attention, or an ensemble of unlike ones.
    """
    found = [_of_one(model, sample, target) for model in models]
    shapes = {tuple((w.kind, w.layer, tuple(w.probs.shape)) for w in one) for one in found}
    if len(shapes) > 1:
        raise ValueError("the models of this ensemble differ in layers or heads: look at each")
    return [_mean(same) for same in zip(*found)]


def _mean(same: Sequence[Weights]) -> Weights:
    gates = [w.gate for w in same if w.gate is not None]
    gate = torch.stack(gates).mean(0) if gates else None
    return same[0]._replace(probs=torch.stack([w.probs for w in same]).mean(0), gate=gate)


def chosen(
    weights: Sequence[Weights], kind: str = "cross", layer: Optional[int] = None
) -> List[Weights]:
    """The layers of one kind, or one of them; without a layer the last of cross-attention.

    Raises:
        ValueError: the model has none of this kind, or no such layer.
    """
    same = [w for w in weights if w.kind == kind]
    if not same:
        has = sorted({w.kind for w in weights})
        raise ValueError(f"the model has no {kind} attention; it has {', '.join(has)}")
    if layer is None:
        return same[-1:]
    if not 1 <= layer <= len(same):
        raise ValueError(f"{kind} attention has layers 1 to {len(same)}, got {layer}")
    return [same[layer - 1]]


def _of_one(model: nn.Module, sample: Any, target: Tensor) -> List[Weights]:
    places = [place for place in attention_places(model) if place.where in KINDS]
    calls: Dict[int, List[Tensor]] = {}
    with ExitStack() as stack:
        for place in places:
            stack.enter_context(_recorded(place, calls.setdefault(id(place.attention), []).append))
        _, extra = model(**sample["net_input"], prev_output_tokens=_shifted(sample, target))
    if isinstance(getattr(model.decoder, "attention", None), TwoHeadedAttention):
        return [_two_headed(extra)]
    found: List[Weights] = []
    for kind in KINDS:
        layers = [calls[id(p.attention)] for p in places if p.where == kind]
        for number, steps in enumerate(filter(None, layers), 1):
            probs = torch.cat(steps, dim=1).float().cpu()  # heads x rows x columns
            names = [f"head {i}" for i in range(1, len(probs) + 1)]
            found.append(Weights(kind, number, names, probs))
    if not found:
        raise ValueError(f"{type(model).__name__} has no attention that can be shown")
    return found


def _shifted(sample: Any, target: Tensor) -> Tensor:
    """What the decoder has read before each token of the target, (1, tgt_len)."""
    previous = torch.cat([target[-1:], target[:-1]])
    shifted: Tensor = previous.unsqueeze(0).to(sample["net_input"]["src_tokens"])
    return shifted


def _two_headed(extra: Any) -> Weights:
    probs = torch.cat([extra["lemma"], extra["tags"]]).float().cpu()
    gate = extra["gate"][0].float().cpu()
    return Weights("cross", 1, ["characters", "features"], probs, gate)


@contextmanager
def _recorded(place: Place, record: Callable[[Tensor], None]) -> Iterator[None]:
    """While it lasts, an attention tells its weights, (heads, rows, columns), at each call."""
    attention: Any = place.attention
    stock = attention.forward
    multi_head = has_temperature(attention)
    # what would send fairseq into torch's fused layers, which tell no weights of single heads
    flags = [(attention, "skip_embed_dim_check", True), (place.parent, "can_use_fastpath", False)]
    saved = [(owner, name, owner.__dict__[name]) for owner, name, _ in flags if name in vars(owner)]

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not multi_head:
            output, weights = stock(*args, **kwargs)[:2]
            record(_one_head(weights))
            return output, weights
        asked = kwargs.get("need_head_weights", False)
        output, weights = stock(*args, **{**kwargs, "need_head_weights": True})
        record(weights[:, 0])
        return output, weights if asked else weights.mean(dim=0)

    for owner, name, value in flags:
        if name in vars(owner):
            setattr(owner, name, value)
    attention.forward = forward
    try:
        yield
    finally:
        del attention.forward
        for owner, name, value in saved:
            setattr(owner, name, value)


def _one_head(weights: Tensor) -> Tensor:
    """Of the LSTM, (src_len, 1) at each step; of convolutions, (1, tgt_len, src_len)."""
    return weights.t().unsqueeze(0) if weights.dim() == 2 else weights
