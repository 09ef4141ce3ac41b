"""The output layer: a mix-in that gives any fairseq decoder entmax probabilities."""

from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq.models import FairseqDecoder
from torch import Tensor, nn

from fairseq_entmax.functional import entmax, log_entmax
from fairseq_entmax.functional.mapping import entmax_dense

from .adopt import adopt

_CROSS_ENTROPIES = ("cross_entropy", "label_smoothed_cross_entropy", "nll_loss")
_ADAPTIVE = (
    "adaptive softmax ({flag}) is a softmax by construction and cannot be sparse: "
    "drop {flag}, or use the stock arch"
)


class EntmaxOutputMixin:
    """Mix-in for a ``FairseqDecoder``: ``get_normalized_probs`` is alpha-entmax of the scores.

    Put it before the decoder class and set ``output_alpha`` (alpha = 1 is the decoder's own
    softmax). Or let :func:`sparsify_output` do both for a decoder that is already built.
    """

    output_alpha: float = 1.5

    @torch.jit.unused
    def output_weights(self) -> Optional[Tuple[Tensor, Optional[Tensor]]]:
        """Weight (V, d) and bias of the output layer, if it is one linear map of the features that
        ``features_only=True`` returns; None keeps the fused loss away from this decoder.
        """
        return None

    def get_normalized_probs_scriptable(
        self,
        net_output: Tuple[Tensor, Optional[Dict[str, List[Optional[Tensor]]]]],
        log_probs: bool,
        sample: Optional[Dict[str, Tensor]] = None,
    ):
        """p = entmax_alpha(scores) in float32, or its logarithm (-inf where p = 0).

        Args:
            net_output: the decoder's output, scores (..., V) first.
            log_probs: return log p.
            sample: ignored; fairseq's adaptive softmax reads its target.
        """
        scores = net_output[0].float()
        if self.output_alpha == 1.0:
            return torch.log_softmax(scores, -1) if log_probs else torch.softmax(scores, -1)
        if torch.jit.is_scripting():
            probs = entmax_dense(scores, self.output_alpha)
            return probs.log() if log_probs else probs
        return self.normalize(scores, log_probs)

    @torch.jit.unused
    def normalize(self, scores: Tensor, log_probs: bool) -> Tensor:
        """Probabilities or their logarithm, through which it refuses to be trained."""
        if log_probs and torch.is_grad_enabled() and scores.requires_grad:
            raise ValueError(
                f"log-probabilities of a sparse output (output_alpha={self.output_alpha}) are "
                "-inf outside the support and have no gradient there: train with "
                "`--criterion entmax_loss`, or set `--output-alpha 1`."
            )
        if log_probs:
            return log_entmax(scores, self.output_alpha)
        return entmax(scores, self.output_alpha)


def sparsify_output(decoder: FairseqDecoder, alpha: float) -> FairseqDecoder:
    """A built decoder with entmax in its output layer, sharing its parameters.

    Raises:
        ValueError: alpha < 1, or the decoder has an adaptive softmax.
    """
    check_output_alpha(alpha)
    if getattr(decoder, "adaptive_softmax", None) is not None:
        raise ValueError(_ADAPTIVE.format(flag="--adaptive-softmax-cutoff"))
    sparse_class = type(decoder)
    if not isinstance(decoder, EntmaxOutputMixin):
        sparse_class = type(f"Entmax{sparse_class.__name__}", (EntmaxOutputMixin, sparse_class), {})
    return adopt(sparse_class, decoder, output_alpha=float(alpha))


def check_output_alpha(alpha: float) -> None:
    if not alpha >= 1:
        raise ValueError(f"--output-alpha must be >= 1 (1 is softmax, 2 is sparsemax), got {alpha}")


def check_output_args(args: Any) -> None:
    """Refuse, when a model is built, what cannot be trained with a sparse output.

    Raises:
        ValueError: alpha < 1, adaptive softmax, or a criterion that needs log-probabilities.
    """
    check_output_alpha(args.output_alpha)
    criterion = getattr(args, "criterion", None)
    criterion = getattr(criterion, "_name", criterion)
    if criterion == "adaptive_loss":
        raise ValueError(_ADAPTIVE.format(flag="--criterion adaptive_loss"))
    if args.output_alpha > 1 and criterion in _CROSS_ENTROPIES:
        raise ValueError(
            f"--criterion {criterion} has no gradient outside the support of a sparse output "
            f"(--output-alpha {args.output_alpha}): use `--criterion entmax_loss` "
            "(--label-smoothing keeps its meaning), or set `--output-alpha 1`."
        )


def output_alpha_of(model: nn.Module) -> Optional[float]:
    """The alpha of a model's output layer; None for a model that knows only softmax."""
    decoder = getattr(model, "decoder", model)
    return getattr(decoder, "output_alpha", None)
