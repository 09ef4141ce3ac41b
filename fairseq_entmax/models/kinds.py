"""Which parts of each of fairseq's models can be sparse, known before one is built."""

from typing import Dict, Tuple, Type

from fairseq.models import (
    BaseFairseqModel,
    FairseqEncoderDecoderModel,
    FairseqLanguageModel,
    FairseqMultiModel,
)
from fairseq.models.nat import FairseqNATModel

from fairseq_entmax.modules.sparsify import AttentionAlphas

_ALL = AttentionAlphas._fields
_MASKED = ("roberta", "xmod", "masked_lm")

# their attention is not fairseq's own, so there is nothing to replace
REFUSED: Dict[str, str] = {
    "model_parallel_roberta": "its attention is split over devices by Megatron",
    "model_parallel_transformer_lm": "its attention is split over devices by Megatron",
    "pipeline_parallel_transformer": "fairscale cuts its layers into stages when it is built",
    "hf_gpt2": "its attention is of the transformers library",
    "dummy_model": "it is a benchmark without attention or words",
}

# where the attentions are not those that the kind of model suggests
_ATTENTIONS: Dict[str, Tuple[str, ...]] = {
    "lstm": ("cross",),
    "fconv": ("cross",),
    "fconv_self_att": ("decoder", "cross"),
    "lightconv": ("cross",),
    "s2t_berard": ("cross",),
    "tacotron_2": ("cross",),
    "lstm_lm": (),
    "fconv_lm": (),
    "lightconv_lm": (),
    "wav2vec": (),
    "speech_dlm": ("decoder", "cross"),
}
_UNSCALED = ("lstm", "fconv", "fconv_self_att", "s2t_berard", "tacotron_2")


def attentions_of(name: str, stock: Type[BaseFairseqModel]) -> Tuple[str, ...]:
    """Where a model attends: encoder, decoder (to itself), cross."""
    if name in _ATTENTIONS:
        return _ATTENTIONS[name]
    if issubclass(stock, (FairseqEncoderDecoderModel, FairseqMultiModel)):
        return _ALL
    return ("decoder",) if issubclass(stock, FairseqLanguageModel) else ("encoder",)


def has_temperature(name: str) -> bool:
    """Whether its attention is multi-head attention, whose scores a temperature divides."""
    return name not in _UNSCALED


def why_no_output(name: str, stock: Type[BaseFairseqModel]) -> str:
    """Why the model's output layer cannot be sparse; "" if it can."""
    if issubclass(stock, FairseqNATModel):
        return (
            "a non-autoregressive model predicts all words at once by a loss of its own "
            "(nat_loss): only its attention can be sparse"
        )
    if name in ("speech_dlm", "transformer_ulm"):
        return "it predicts several streams by a loss of its own: only its attention can be sparse"
    if "spect" in name or name in ("tacotron_2", "tts_transformer", "fastspeech2"):
        return "it predicts spectrograms, not words: only its attention can be sparse"
    writes = (FairseqEncoderDecoderModel, FairseqLanguageModel, FairseqMultiModel)
    if name in _MASKED or issubclass(stock, writes):
        return ""
    return "it has no output layer over words: only its attention can be sparse"
