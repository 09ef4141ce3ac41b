"""The sparse LSTM has one flag more than other twins: how its attention scores."""

from typing import Any

from fairseq.models import register_model
from fairseq.models.lstm import LSTMModel

from fairseq_entmax.modules.luong_attention import SCORES

from .twins import SparseTwin


@register_model("lstm_entmax")
class LSTMEntmaxModel(SparseTwin, LSTMModel):
    """fairseq's ``lstm`` (input feeding, Luong attention) with alpha-entmax.

    Source:
        Peters, Niculae, Martins (ACL 2019), section 4.

    Example::

        $ fairseq-train ... --arch lstm_entmax --attention-score mlp --criterion entmax_loss
    """

    stock = LSTMModel
    attentions = ("cross",)
    scaled = False
    # fairseq's builder reads the criterion without asking whether it is there
    defaults = {"attention_score": "general", "criterion": "entmax_loss"}

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """The twin's flags, and ``--attention-score``."""
        super().add_args(parser)
        parser.add_argument(
            "--attention-score",
            choices=SCORES,
            help="dot: s.h, general: (Ws).h, mlp: v.tanh(Ws + Uh) (default: general)",
        )
