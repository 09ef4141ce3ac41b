"""The two-headed LSTM: separate encoders and attentions for the characters and the features."""

from typing import Any, ClassVar, Dict, List, NamedTuple, Optional

import torch
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoder, register_model, register_model_architecture
from fairseq.models import lstm as stock
from fairseq.models.lstm import DEFAULT_MAX_SOURCE_POSITIONS, Embedding, Linear
from fairseq.modules import FairseqDropout
from torch import Tensor, nn

from fairseq_entmax.data.symbols import is_language, is_tag
from fairseq_entmax.modules import EntmaxOutputMixin
from fairseq_entmax.modules.subsequence_lstm import SubsequenceLSTM
from fairseq_entmax.modules.two_headed_attention import (
    CHARACTER,
    GATES,
    PADDING,
    TAG,
    TwoHeadedAttention,
    TwoHeadedWeights,
)

from .lstm import LSTMEntmaxModel

_UNKNOWN = 3


class TwoHeadedEncoderOut(NamedTuple):
    """The states of both encoders, each where its symbol stands in the line."""

    states: Tensor  # src_len x bsz x units
    hiddens: Tensor  # layers x bsz x units: of the characters, the decoder starts from them
    cells: Tensor  # layers x bsz x units
    kinds: Tensor  # src_len x bsz: PADDING, CHARACTER or TAG


class TwoHeadedEncoder(FairseqEncoder):
    """One line in, read by two encoders: ``H a u s <lang:german> <N> <PL>``.

    Symbols in angle brackets, ``<...>``, are tags, all others and the end of the line are
    characters. An unknown symbol is what its left neighbour is: an unknown feature among the
    features, after the characters, is a tag.
    """

    def __init__(self, dictionary: Dictionary, embed_tokens: nn.Embedding, args: Any) -> None:
        super().__init__(dictionary)
        self.embed_tokens = embed_tokens
        self.dropout_in_module = FairseqDropout(args.encoder_dropout_in, "TwoHeadedEncoder")
        self.dropout_out_module = FairseqDropout(args.encoder_dropout_out, "TwoHeadedEncoder")
        self.max_source_positions = getattr(
            args, "max_source_positions", DEFAULT_MAX_SOURCE_POSITIONS
        )
        self.embed_language: Optional[nn.Embedding] = None
        if args.language_embed_dim > 0:
            self.embed_language = Embedding(
                len(dictionary), args.language_embed_dim, dictionary.pad()
            )
        self.tag_summary: Optional[nn.Linear] = None
        if args.tag_summary_dim > 0:
            self.tag_summary = Linear(2 * args.encoder_hidden_size, args.tag_summary_dim)
        sizes = (args.encoder_hidden_size, args.encoder_layers, args.encoder_dropout_out)
        self.characters = SubsequenceLSTM(
            embed_tokens.embedding_dim + args.language_embed_dim + args.tag_summary_dim, *sizes
        )
        self.tags = SubsequenceLSTM(
            embed_tokens.embedding_dim, args.encoder_hidden_size, args.tag_layers, sizes[2]
        )
        self.output_units = self.characters.output_units
        kinds, languages = _classes(dictionary)
        self.register_buffer("kind_of_symbol", kinds, persistent=False)
        self.register_buffer("language_symbol", languages, persistent=False)

    def forward(self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None):
        """src_tokens (bsz, src_len), padded on any side -> :class:`TwoHeadedEncoderOut`."""
        kinds = self.kinds(src_tokens)
        x = self.dropout_in_module(self.embed_tokens(src_tokens))
        tag_states, tag_hiddens, _ = self.tags(x, kinds == TAG)
        if self.embed_language is not None:
            x = _beside_each(x, self.embed_language(self.language_symbol[src_tokens].amax(dim=1)))
        if self.tag_summary is not None:
            x = _beside_each(x, self.tag_summary(tag_hiddens[-1]))
        states, hiddens, cells = self.characters(x, kinds == CHARACTER)
        states = self.dropout_out_module(states + tag_states)  # one of them is 0 everywhere
        return TwoHeadedEncoderOut(states.transpose(0, 1), hiddens, cells, kinds.t())

    def kinds(self, src_tokens: Tensor) -> Tensor:
        """PADDING, CHARACTER or TAG for each symbol, (bsz, src_len)."""
        kinds = self.kind_of_symbol[src_tokens]
        unknown = kinds == _UNKNOWN
        position = torch.arange(kinds.size(1), device=kinds.device).expand_as(kinds)
        last_known = position.masked_fill(unknown, 0).cummax(dim=1).values
        after_tag = kinds.gather(1, last_known) == TAG
        resolved = torch.where(after_tag, kinds.new_tensor(TAG), kinds.new_tensor(CHARACTER))
        return torch.where(unknown, resolved, kinds)

    def reorder_encoder_out(self, encoder_out: TwoHeadedEncoderOut, new_order: Tensor):
        """The states in another order of lines, new_order (n,)."""
        return TwoHeadedEncoderOut(*(part.index_select(1, new_order) for part in encoder_out))

    def max_positions(self):
        """The longest line, in symbols."""
        return self.max_source_positions


def _beside_each(x: Tensor, vector: Tensor) -> Tensor:
    """x (bsz, len, a) and a vector (bsz, b) for each line -> (bsz, len, a + b)."""
    return torch.cat([x, vector.unsqueeze(1).expand(-1, x.size(1), -1)], dim=2)


def _classes(dictionary: Dictionary):
    """For each symbol of a dictionary its kind, and itself if it is a language, else padding."""
    kinds, languages = [], []
    for index, symbol in enumerate(dictionary.symbols):
        special = {dictionary.pad(): PADDING, dictionary.unk(): _UNKNOWN}
        kinds.append(special.get(index, TAG if is_tag(symbol) else CHARACTER))
        languages.append(index if is_language(symbol) else dictionary.pad())
    return torch.tensor(kinds), torch.tensor(languages)


class TwoHeadedDecoder(EntmaxOutputMixin, stock.LSTMDecoder):
    """fairseq's decoder with input feeding, its attention two-headed."""

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: TwoHeadedEncoderOut,
        incremental_state: Optional[Dict[str, Dict[str, Optional[Tensor]]]] = None,
    ):
        """Features (bsz, tgt_len, dim) and, in eval mode, what was attended to: a dictionary of
        attn (both heads, weighted by the gate), lemma and tags, each (bsz, tgt_len, src_len), and
        gate, (bsz, tgt_len, 2).
        """
        if incremental_state:
            prev_output_tokens = prev_output_tokens[:, -1:]
            hiddens, cells, feed = self.get_cached_state(incremental_state)
        else:
            hiddens, cells = list(encoder_out.hiddens), list(encoder_out.cells)
            if self.encoder_hidden_proj is not None:
                hiddens = [self.encoder_hidden_proj(hidden) for hidden in hiddens]
                cells = [self.encoder_cell_proj(cell) for cell in cells]
            feed = hiddens[0].new_zeros(hiddens[0].size(0), self.hidden_size)
        outs: List[Tensor] = []
        steps: List[TwoHeadedWeights] = []
        embedded = self.dropout_in_module(self.embed_tokens(prev_output_tokens))
        for x in embedded.unbind(dim=1):
            x = torch.cat([x, feed], dim=1)
            for i, rnn in enumerate(self.layers):
                hiddens[i], cells[i] = rnn(x, (hiddens[i], cells[i]))
                x = self.dropout_out_module(hiddens[i])
            out, weights = self.attention(hiddens[-1], encoder_out.states, encoder_out.kinds)
            feed = self.dropout_out_module(out)
            outs.append(feed)
            steps.append(weights)
        state = {
            "prev_hiddens": torch.stack(hiddens),
            "prev_cells": torch.stack(cells),
            "input_feed": feed,
        }
        self.set_incremental_state(incremental_state, "cached_state", state)
        features = torch.stack(outs, dim=1)
        if hasattr(self, "additional_fc"):
            features = self.dropout_out_module(self.additional_fc(features))
        attended = None if self.training or not self.need_attn else _attended(steps)
        return features, attended


def _attended(steps: List[TwoHeadedWeights]) -> Dict[str, Any]:
    lemma, tags, gate = (torch.stack(parts, dim=1) for parts in zip(*steps))
    joint = gate[..., :1] * lemma + gate[..., 1:] * tags
    return {"attn": [joint], "lemma": lemma, "tags": tags, "gate": gate}


@register_model("two_headed_lstm_entmax")
class TwoHeadedLSTMModel(LSTMEntmaxModel):
    """``lstm_entmax`` with one encoder and attention for the characters of a lemma and one for
    its features. Both are in one source line, split by :class:`TwoHeadedEncoder`.

    Unlike the source's, the characters' encoder knows the features: a linear layer of the last
    state of theirs is beside each character (``--tag-summary-dim 0`` is the source's). Without it
    the model stays behind ``lstm_entmax`` (examples/inflection/RESULTS.md).

    Source:
        Peters and Martins, "IT-IST at the SIGMORPHON 2019 Shared Task: Sparse Two-headed Models
        for Inflection".

    Example::

        $ fairseq-train ... --arch two_headed_lstm_entmax --gate sparsemax --task inflection
    """

    defaults: ClassVar[Dict[str, Any]] = {
        **LSTMEntmaxModel.defaults,
        "gate": "entmax",
        "share_gate_output": False,
        "tag_layers": 1,
        "language_embed_dim": 0,
        "tag_summary_dim": 64,
    }

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """The LSTM's flags, and those of two heads."""
        super().add_args(parser)
        parser.add_argument(
            "--gate",
            choices=list(GATES),
            help="what weighs the two heads; none: one projection of both (default: entmax)",
        )
        parser.add_argument(
            "--share-gate-output",
            action="store_true",
            help="the gated heads have one output projection, not one each",
        )
        for flag, explanation in (
            ("--tag-layers", "layers of the features' encoder (default: 1)"),
            (
                "--language-embed-dim",
                "size of an embedding of the language at each character (default: 0, none)",
            ),
            (
                "--tag-summary-dim",
                "size of a summary of the features at each character, 0 for none (default: 64)",
            ),
        ):
            parser.add_argument(flag, type=int, metavar="N", help=explanation)

    @classmethod
    def build_model(cls, args: Any, task: Any) -> "TwoHeadedLSTMModel":
        """The LSTM with two encoders and a two-headed attention.

        Raises:
            ValueError: as the LSTM's, or ``--decoder-attention 0``.
        """
        cls.configure(args)
        if not utils.eval_bool(getattr(args, "decoder_attention", None) or "1"):
            raise ValueError("two_headed_lstm_entmax is its attention: drop --decoder-attention 0")
        args.encoder_bidirectional = True
        model = super().build_model(args, task)
        encoder = TwoHeadedEncoder(task.source_dictionary, model.encoder.embed_tokens, args)
        decoder = model.decoder
        decoder.__class__ = TwoHeadedDecoder
        decoder.attention = TwoHeadedAttention(
            decoder.hidden_size,
            encoder.output_units,
            decoder.hidden_size,
            alpha=args.cross_attention_alpha,
            score=args.attention_score,
            gate_alpha=GATES[args.gate],
            share_output=args.share_gate_output,
            learn_alpha=args.learn_attention_alpha,
        )
        return cls(encoder, decoder)


@register_model_architecture("two_headed_lstm_entmax", "two_headed_lstm_entmax")
def two_headed_lstm_entmax(args):
    """The sizes of fairseq's ``lstm``."""
    TwoHeadedLSTMModel.configure(args)
    stock.base_architecture(args)


@register_model_architecture("two_headed_lstm_entmax", "two_headed_lstm_entmax_sigmorphon")
def two_headed_lstm_entmax_sigmorphon(args):
    """The encoder and decoder sizes of deep-spin/SIGMORPHON2019."""
    sizes = {
        "encoder_embed_dim": 180,
        "language_embed_dim": 20,
        "tag_summary_dim": 0,
        "encoder_hidden_size": 100,
        "encoder_layers": 2,
        "decoder_embed_dim": 200,
        "decoder_hidden_size": 200,
        "decoder_out_embed_dim": 200,
        "decoder_layers": 2,
        "dropout": 0.3,
    }
    for name, value in sizes.items():
        setattr(args, name, getattr(args, name, None) or value)
    two_headed_lstm_entmax(args)
