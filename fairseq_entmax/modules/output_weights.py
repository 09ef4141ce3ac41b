"""Where the output layers of fairseq's decoders keep their weights, for the fused loss."""

import contextlib
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from fairseq.models import fconv, fconv_self_att, lightconv, lstm
from fairseq.models.hubert import hubert_asr
from fairseq.models.speech_to_text.berard import LSTMDecoder as BerardDecoder
from fairseq.models.transformer import TransformerDecoderBase
from fairseq.models.wav2vec import wav2vec2_asr
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

Weights = Optional[Tuple[Tensor, Optional[Tensor]]]


class _Output(NamedTuple):
    """An output layer: its name in the decoder, a method or a module, and how to read it."""

    name: str
    weights: Callable[[Any], Weights]


def _linear(name: str) -> Callable[[Any], Weights]:
    def weights(decoder: Any) -> Weights:
        projection = getattr(decoder, name, None)
        # with another class, or hooks, it is more than its weights
        if type(projection) is not nn.Linear or projection._forward_hooks:
            return None
        weight = projection.weight
        for hook in projection._forward_pre_hooks.values():
            if not isinstance(hook, WeightNorm):
                return None
            weight = hook.compute_weight(projection)
        return weight, projection.bias

    return weights


def _lstm(decoder: Any) -> Weights:
    if decoder.share_input_output_embed:
        return decoder.embed_tokens.weight, None
    return _linear("fc_out")(decoder)


def _self_att(decoder: Any) -> Weights:
    return None if decoder.pretrained else _linear("fc3")(decoder)


def _speech(decoder: Any) -> Weights:
    tied = decoder.share_input_output_embed
    return decoder.embed_tokens.weight if tied else decoder.embed_out, None


# by the stock function that multiplies by them: a subclass that has its own is not here
_OUTPUTS: Dict[Any, _Output] = {
    TransformerDecoderBase.output_layer: _Output("output_layer", _linear("output_projection")),
    lstm.LSTMDecoder.output_layer: _Output("output_layer", _lstm),
    wav2vec2_asr.TransformerDecoder.output_layer: _Output("output_layer", _speech),
    hubert_asr.TransformerDecoder.output_layer: _Output("output_layer", _speech),
    fconv.FConvDecoder.forward: _Output("fc3", _linear("fc3")),
    fconv_self_att.FConvDecoder.forward: _Output("fc3", _self_att),
    lightconv.LightConvDecoder.forward: _Output("output_projection", _linear("output_projection")),
    BerardDecoder.forward: _Output("output_projection", _linear("output_projection")),
}


def _output_of(decoder: Any) -> Optional[_Output]:
    cls = type(decoder)
    return _OUTPUTS.get(getattr(cls, "output_layer", None)) or _OUTPUTS.get(cls.forward)


def output_weights_of(decoder: Any) -> Weights:
    """Weight (V, d) and bias of a decoder's output layer, if it is one linear map that is known;
    else None.
    """
    output = _output_of(decoder)
    if output is None or getattr(decoder, "adaptive_softmax", None) is not None:
        return None
    return output.weights(decoder)


@contextlib.contextmanager
def features_for_scores(decoder: Any) -> Iterator[List[Tensor]]:
    """Within it ``decoder`` returns features where it would return scores.

    The list collects them: one entry for each time that the output layer was asked.
    """
    output = _output_of(decoder)
    assert output is not None, "asked only where there are output weights"
    asked: List[Tensor] = []

    def identity(features: Tensor, **_: Any) -> Tensor:
        asked.append(features)
        return features

    linear = decoder._modules.pop(output.name, None)
    decoder.__dict__[output.name] = identity
    try:
        yield asked
    finally:
        del decoder.__dict__[output.name]
        if linear is not None:
            decoder._modules[output.name] = linear
