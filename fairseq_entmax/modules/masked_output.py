"""The output of masked language models: scores of words at the masked places of an encoder."""

from typing import Optional, Union

from fairseq.models.masked_lm import MaskedLMEncoder
from fairseq.models.roberta import RobertaEncoder
from torch import nn

from .output import check_output_alpha

_MASKED_OUTPUTS = (RobertaEncoder, MaskedLMEncoder)


def masked_output_of(model: nn.Module) -> Optional[nn.Module]:
    """The encoder inside ``model`` that scores the words of masked places, or None."""
    found = [module for module in model.modules() if isinstance(module, _MASKED_OUTPUTS)]
    return found[0] if found else None


def sparsify_masked_output(encoder: Union[RobertaEncoder, MaskedLMEncoder], alpha: float) -> None:
    """Say the alpha by which criterion ``masked_entmax_loss`` trains the encoder's scores.

    fairseq's masked language models return scores only, whoever reads them normalises.
    """
    check_output_alpha(alpha)
    encoder.output_alpha = float(alpha)
