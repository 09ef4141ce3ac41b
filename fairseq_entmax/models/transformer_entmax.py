"""The transformer with alpha-entmax in its attention and output layer."""

from argparse import Namespace
from typing import Any, Optional, Tuple

import torch
from fairseq.models import register_model, register_model_architecture
from fairseq.models.transformer import (
    TransformerDecoder,
    TransformerEncoder,
    TransformerModel,
    transformer_legacy,
)
from omegaconf import OmegaConf
from torch import Tensor, nn

from fairseq_entmax.modules import (
    EntmaxMultiheadAttention,
    EntmaxOutputMixin,
    check_output_args,
)

from .flags import (
    add_alpha_args,
    add_temperature_arg,
    attention_alphas,
    attention_temperature,
    set_alpha_defaults,
)


class EntmaxTransformerEncoder(TransformerEncoder):
    """fairseq's encoder; its self-attention is entmax."""

    def build_encoder_layer(self, args: Any) -> nn.Module:
        layer = super().build_encoder_layer(args)
        inner = _unwrapped(layer)
        alpha = attention_alphas(self.args).encoder
        inner.self_attn = _sparse_attention(inner.self_attn, alpha, self.args)
        # fairseq 0.12.2's fused layer knows only softmax and fails after layer norm
        inner.can_use_fastpath = False
        return layer


class EntmaxTransformerDecoder(EntmaxOutputMixin, TransformerDecoder):
    """fairseq's decoder; self-attention, cross-attention and output are entmax."""

    @torch.jit.unused
    def output_weights(self) -> Optional[Tuple[Tensor, Optional[Tensor]]]:
        plain = type(self.output_projection) is nn.Linear
        return (self.output_projection.weight, self.output_projection.bias) if plain else None

    def build_decoder_layer(self, args: Any, no_encoder_attn: bool = False) -> nn.Module:
        layer = super().build_decoder_layer(args, no_encoder_attn)
        inner = _unwrapped(layer)
        alphas = attention_alphas(self.args)
        inner.self_attn = _sparse_attention(inner.self_attn, alphas.decoder, self.args)
        if inner.encoder_attn is not None:
            inner.encoder_attn = _sparse_attention(inner.encoder_attn, alphas.cross, self.args)
        return layer


def _sparse_attention(attention: nn.Module, alpha: float, args: Any) -> nn.Module:
    return EntmaxMultiheadAttention.from_stock(
        attention, alpha, args.learn_attention_alpha, attention_temperature(args, alpha)
    )


def _unwrapped(layer: nn.Module) -> nn.Module:
    """The layer under fairseq's fully sharded wrappers, which hand on reads but keep writes."""
    while hasattr(layer, "module"):
        layer = layer.module
    return layer


@register_model("transformer_entmax")
class TransformerEntmaxModel(TransformerModel):
    """fairseq's ``transformer`` with alpha-entmax attention and output.

    Parameters and state-dict names are the stock model's, so its checkpoints load, and with
    ``--output-alpha 1 --attention-alpha 1`` it is the stock model.

    Source:
        Peters, Niculae, Martins (ACL 2019); Correia, Niculae, Martins (EMNLP 2019).
    """

    @classmethod
    def hub_models(cls):
        return {}

    @classmethod
    def add_args(cls, parser):
        super().add_args(parser)
        add_alpha_args(parser)
        add_temperature_arg(parser)

    @classmethod
    def build_model(cls, args, task):
        if OmegaConf.is_config(args):  # of which fairseq keeps only what its own config declares
            args = Namespace(**OmegaConf.to_container(args, resolve=True))
        set_alpha_defaults(args)
        check_output_args(args)
        if getattr(args, "adaptive_softmax_cutoff", None):
            raise ValueError(
                "--adaptive-softmax-cutoff builds a hierarchical softmax, which cannot be sparse: "
                f"drop the flag (got {args.adaptive_softmax_cutoff!r}), or use the stock arch"
            )
        return super().build_model(args, task)

    @classmethod
    def build_encoder(cls, args, src_dict, embed_tokens):
        return EntmaxTransformerEncoder(args, src_dict, embed_tokens)

    @classmethod
    def build_decoder(cls, args, tgt_dict, embed_tokens):
        decoder = EntmaxTransformerDecoder(
            args, tgt_dict, embed_tokens, no_encoder_attn=args.no_cross_attention
        )
        decoder.output_alpha = float(args.output_alpha)
        _narrow_scores(decoder)
        return decoder


def _narrow_scores(decoder: EntmaxTransformerDecoder) -> None:
    """Start a sparse output with features of norm 1: the last layer norm's gain is d ** -0.5.

    fairseq's start, features of norm d ** 0.5, gives scores a standard deviation of 1. alpha-entmax
    drops what is 1 / (alpha - 1) behind, so of 4,000 words about 100 would be possible, at random,
    and the others get no gradient but as answers; dropout's noise, half a deviation, is as large
    as the leads that matter. examples/translation/RESULTS.md has what it changes.
    """
    if decoder.output_alpha == 1:
        return
    norm = decoder.layer_norm
    if norm is None and len(decoder.layers):  # normalised after each layer
        norm = decoder.layers[-1].final_layer_norm
    gain = getattr(norm, "weight", None)
    if isinstance(gain, nn.Parameter):  # not so where it is sharded
        with torch.no_grad():
            gain.mul_(gain.numel() ** -0.5)


@register_model_architecture("transformer_entmax", "transformer_entmax")
def transformer_entmax(args):
    set_alpha_defaults(args)
    transformer_legacy.base_architecture(args)


@register_model_architecture("transformer_entmax", "transformer_entmax_tiny")
def transformer_entmax_tiny(args):
    set_alpha_defaults(args)
    transformer_legacy.tiny_architecture(args)


@register_model_architecture("transformer_entmax", "transformer_entmax_iwslt_de_en")
def transformer_entmax_iwslt_de_en(args):
    set_alpha_defaults(args)
    transformer_legacy.transformer_iwslt_de_en(args)


@register_model_architecture("transformer_entmax", "transformer_entmax_wmt_en_de")
def transformer_entmax_wmt_en_de(args):
    set_alpha_defaults(args)
    transformer_legacy.transformer_wmt_en_de(args)


@register_model_architecture("transformer_entmax", "transformer_entmax_wmt_en_de_big")
def transformer_entmax_wmt_en_de_big(args):
    set_alpha_defaults(args)
    transformer_legacy.transformer_wmt_en_de_big(args)
