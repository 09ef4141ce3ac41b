"""The one way to become sparse: any built fairseq model, in place."""

import math
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, TypeVar

from fairseq.models import FairseqDecoder
from fairseq.modules import MultiheadAttention
from torch import nn

from .attentions import (
    SparseAttention,
    has_score,
    has_temperature,
    is_attention,
    is_self_attention,
    sparse_twin_of,
)
from .masked_output import masked_output_of, sparsify_masked_output
from .output import KNOWN_ALPHAS, narrow_scores, sparsify_output

Model = TypeVar("Model", bound=nn.Module)


class AttentionAlphas(NamedTuple):
    """An alpha for each place where an attention stands."""

    encoder: float
    decoder: float
    cross: float


class Place(NamedTuple):
    """Where an attention stands: ``parent.name``, and whether it is encoder, decoder or cross."""

    parent: Any  # a module, and what its class has
    name: str
    attention: nn.Module
    where: str


def sparsify(
    model: Model,
    output_alpha: Optional[float] = 1.5,
    attention_alpha: float = 1.5,
    *,
    encoder_attention_alpha: Optional[float] = None,
    decoder_attention_alpha: Optional[float] = None,
    cross_attention_alpha: Optional[float] = None,
    learn_attention_alpha: bool = False,
    attention_temperature: Optional[float] = None,
    attention_score: Optional[str] = None,
    output_temperature: Optional[float] = None,
    untrained: bool = False,
) -> Model:
    """Give a built fairseq model alpha-entmax in its attention and output layer, in place.

    p = argmax_p p.z + H_alpha(p), with exact zeros for alpha > 1, stands where softmax stood. The
    parameters, their names and all else stay; with every alpha 1 the model is what it was.

    Args:
        model: any built fairseq model.
        output_alpha: of the distribution over words, >= 1; None leaves the output as it is.
        attention_alpha: of all attention, >= 1.
        encoder_attention_alpha: of the encoder's (default: ``attention_alpha``); likewise
            ``decoder_`` for self-attention of decoders and ``cross_`` for theirs on the encoder.
        learn_attention_alpha: every head learns its alpha in (1, 2) from these on.
        attention_temperature: scores of multi-head attention are divided by it; None is
            4 ** (alpha - 1), with which sparse attention learns as fast as softmax attention.
        attention_score: "dot", "general" or "mlp", of the LSTM's attention; None keeps it.
        output_temperature: the scores of a sparse output are divided by it; None is 1. About 5
            suits scores of a softmax model at alpha 1.5.
        untrained: let a transformer's output without a temperature start with scores near 0, as is
            right before the first update and wrong for a model that was trained.

    Returns:
        The same model.

    Raises:
        ValueError: an alpha below 1; no output layer or no attention that can be sparse; one that
            cannot be (adaptive softmax, xFormers, a learned alpha in a convolutional model).

    Source:
        Peters, Niculae, Martins (ACL 2019); Correia, Niculae, Martins (EMNLP 2019).

    Example::

        >>> from fairseq.models.transformer import TransformerModel
        >>> from fairseq_entmax.modules import sparsify
        >>> def build_model(cls, args, task):  # of a model of yours
        ...     model = TransformerModel.build_model(args, task)
        ...     return sparsify(model, output_alpha=1.5, attention_alpha=1.5, untrained=True)
    """
    given = (encoder_attention_alpha, decoder_attention_alpha, cross_attention_alpha)
    alphas = AttentionAlphas(*(attention_alpha if alpha is None else alpha for alpha in given))
    places = attention_places(model)
    _check_alphas(model, alphas, dict(zip(AttentionAlphas._fields, given)), places)
    attentions = [place.attention for place in places]
    for flag, value, takes in (
        ("attention_temperature", attention_temperature, has_temperature),
        ("attention_score", attention_score, has_score),
    ):
        if value is not None and not any(takes(attention) for attention in attentions):
            raise ValueError(f"{type(model).__name__} has no use for {flag}, got {value!r}")
    for place in places:
        alpha = getattr(alphas, place.where)
        wanted = SparseAttention(
            alpha, learn_attention_alpha, attention_temperature, attention_score
        )
        twin = sparse_twin_of(place.attention, wanted)
        if twin is not place.attention:
            setattr(place.parent, place.name, twin)
        if alpha > 1 and hasattr(place.parent, "can_use_fastpath"):
            # fairseq 0.12.2's fused encoder layer knows only softmax
            place.parent.can_use_fastpath = False
    if output_alpha is not None:
        _sparsify_outputs(model, output_alpha, output_temperature, untrained)
    return model


def _sparsify_outputs(
    model: nn.Module, alpha: float, temperature: Optional[float], untrained: bool
) -> None:
    decoders = decoders_of(model)
    masked = masked_output_of(model)
    if not decoders and masked is None:
        raise ValueError(
            f"{type(model).__name__} has no output layer over words: pass output_alpha=None"
        )
    for decoder in decoders:
        sparsify_output(decoder, alpha, 1.0 if temperature is None else temperature)
        if alpha > 1 and untrained and temperature is None:
            narrow_scores(decoder)
    if masked is not None:
        if temperature is not None:
            raise ValueError(
                f"{type(model).__name__} predicts masked words and has no use for "
                f"output_temperature, got {temperature!r}"
            )
        sparsify_masked_output(masked, alpha)


def decoders_of(model: nn.Module) -> List[FairseqDecoder]:
    """The decoders inside a model, itself included."""
    # fairseq's attention is, for its incremental state, a decoder to Python
    return [
        module
        for module in model.modules()
        if isinstance(module, FairseqDecoder) and not isinstance(module, MultiheadAttention)
    ]


def attention_places(model: nn.Module) -> List[Place]:
    """Every attention inside a model that has a sparse twin."""
    inside = {id(part): name for decoder in decoders_of(model) for name, part in _parts(decoder)}
    found: List[Place] = []
    for parent in model.modules():
        for name, child in parent.named_children():
            if not is_attention(child):
                continue
            within = inside.get(id(child))
            where = "encoder"
            if within is not None:
                where = "decoder" if is_self_attention(child, within) else "cross"
            found.append(Place(parent, name, child, where))
    return found


def _parts(decoder: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    return ((name, part) for name, part in decoder.named_modules() if part is not decoder)


def _check_alphas(
    model: nn.Module,
    alphas: AttentionAlphas,
    given: Dict[str, Optional[float]],
    places: List[Place],
) -> None:
    for where, alpha in alphas._asdict().items():
        if not 1 <= alpha < math.inf:
            raise ValueError(
                f"--{where}-attention-alpha (or --attention-alpha) must be >= 1 and finite "
                f"({KNOWN_ALPHAS}), got {alpha}"
            )
    has: Set[str] = {place.where for place in places}
    if not has and max(alphas) > 1:
        raise ValueError(
            f"{type(model).__name__} has no attention that can be sparse: set its attention alpha "
            f"to 1 (got {max(alphas)})"
        )
    for where, asked in given.items():
        if asked is not None and asked > 1 and where not in has:
            raise ValueError(
                f"{type(model).__name__} has no {where} attention that could be sparse: drop "
                f"--{where}-attention-alpha (got {asked}); it has {', '.join(sorted(has))}"
            )
