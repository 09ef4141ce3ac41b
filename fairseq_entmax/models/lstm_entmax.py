"""The LSTM sequence-to-sequence model with alpha-entmax in its attention and output layer."""

from typing import Dict, Optional, Tuple

import torch
from fairseq.models import lstm as stock
from fairseq.models import register_model, register_model_architecture
from fairseq.models.lstm import LSTMDecoder, LSTMModel
from torch import Tensor

from fairseq_entmax.modules import (
    EntmaxLuongAttention,
    EntmaxOutputMixin,
    adopt,
    check_output_args,
)
from fairseq_entmax.modules.luong_attention import SCORES

from .flags import add_alpha_args, attention_alphas, set_alpha_defaults


class EntmaxLSTMDecoder(EntmaxOutputMixin, LSTMDecoder):
    """fairseq's decoder with input feeding; attention and output are entmax."""

    @torch.jit.unused
    def output_weights(self) -> Optional[Tuple[Tensor, Optional[Tensor]]]:
        if self.share_input_output_embed:
            return self.embed_tokens.weight, None
        return self.fc_out.weight, self.fc_out.bias

    def forward(
        self,
        prev_output_tokens,
        encoder_out: Optional[Tuple[Tensor, Tensor, Tensor, Tensor]] = None,
        incremental_state: Optional[Dict[str, Dict[str, Optional[Tensor]]]] = None,
        src_lengths: Optional[Tensor] = None,
        features_only: bool = False,
    ):
        """Scores (bsz, tgt_len, V), or features (bsz, tgt_len, dim), and the attention."""
        x, attention = self.extract_features(prev_output_tokens, encoder_out, incremental_state)
        if not features_only:
            x = self.output_layer(x)
        return x, attention


@register_model("lstm_entmax")
class LSTMEntmaxModel(LSTMModel):
    """fairseq's ``lstm`` (input feeding, Luong attention) with alpha-entmax.

    Parameters and state-dict names are the stock model's, so its checkpoints load, and with
    ``--output-alpha 1 --attention-alpha 1`` it is the stock model.

    Source:
        Peters, Niculae, Martins (ACL 2019), section 4.
    """

    @staticmethod
    def add_args(parser):
        LSTMModel.add_args(parser)
        add_alpha_args(parser, attentions=("cross",))
        parser.add_argument(
            "--attention-score",
            choices=SCORES,
            help="dot: s.h, general: (Ws).h, mlp: v.tanh(Ws + Uh) (default: general)",
        )

    @classmethod
    def build_model(cls, args, task):
        set_lstm_defaults(args)
        check_output_args(args)
        alpha = attention_alphas(args).cross
        model = super().build_model(args, task)
        model.decoder = adopt(
            EntmaxLSTMDecoder, model.decoder, output_alpha=float(args.output_alpha)
        )
        if model.decoder.attention is not None:
            model.decoder.attention = _entmax_attention(
                model.decoder, alpha, args.attention_score, args.learn_attention_alpha
            )
        return model

    def forward(
        self,
        src_tokens,
        src_lengths,
        prev_output_tokens,
        incremental_state: Optional[Dict[str, Dict[str, Optional[Tensor]]]] = None,
        features_only: bool = False,
    ):
        """Scores (bsz, tgt_len, V), or features with ``features_only``, and the attention."""
        encoder_out = self.encoder(src_tokens, src_lengths=src_lengths)
        return self.decoder(
            prev_output_tokens,
            encoder_out=encoder_out,
            incremental_state=incremental_state,
            features_only=features_only,
        )


def _entmax_attention(decoder: LSTMDecoder, alpha: float, score: str, learn_alpha: bool):
    """The decoder's attention with entmax; the stock projections are kept where they fit."""
    if alpha == 1 and score == "general":
        return decoder.attention
    attention = EntmaxLuongAttention(
        decoder.hidden_size,
        decoder.encoder_output_units,
        decoder.hidden_size,
        alpha,
        score,
        learn_alpha,
    )
    attention.output_proj = decoder.attention.output_proj
    if score != "dot":
        attention.input_proj = decoder.attention.input_proj
    return attention


def set_lstm_defaults(args):
    """What the stock model would look up without asking whether it is there."""
    set_alpha_defaults(args)
    if getattr(args, "attention_score", None) is None:
        args.attention_score = "general"
    if getattr(args, "criterion", None) is None:  # hydra keeps it elsewhere
        args.criterion = "entmax_loss"


@register_model_architecture("lstm_entmax", "lstm_entmax")
def lstm_entmax(args):
    set_lstm_defaults(args)
    stock.base_architecture(args)


@register_model_architecture("lstm_entmax", "lstm_entmax_wiseman_iwslt_de_en")
def lstm_entmax_wiseman_iwslt_de_en(args):
    set_lstm_defaults(args)
    stock.lstm_wiseman_iwslt_de_en(args)


@register_model_architecture("lstm_entmax", "lstm_entmax_luong_wmt_en_de")
def lstm_entmax_luong_wmt_en_de(args):
    set_lstm_defaults(args)
    stock.lstm_luong_wmt_en_de(args)
