"""The output layer: a mix-in that gives any fairseq decoder entmax probabilities."""

import math
from functools import lru_cache
from typing import Any, ContextManager, Dict, List, Optional, Tuple

import torch
from fairseq.models import FairseqDecoder
from torch import Tensor, nn

from fairseq_entmax.functional import entmax, log_entmax
from fairseq_entmax.functional.mapping import entmax_dense
from fairseq_entmax.functional.next_tokens import NextTokenLayer, next_token_layer

from .output_weights import features_for_scores, output_weights_of

_CROSS_ENTROPIES = (
    *("nll_loss", "masked_lm", "legacy_masked_lm_loss", "nat_loss"),
    *("speech_to_unit", "speech_to_unit_2pass"),
)
KNOWN_ALPHAS = "1 is softmax, 2 is sparsemax"
_ADAPTIVE = (
    "adaptive softmax ({flag}) is a softmax by construction and cannot be sparse "
    "(--output-alpha {alpha}): drop {flag}, or use the stock arch, or set --output-alpha 1"
)


class EntmaxOutputMixin:
    """Mix-in for a ``FairseqDecoder``: ``get_normalized_probs`` is alpha-entmax of the scores.

    Put it before the decoder class and set ``output_alpha`` (alpha = 1 is the decoder's own
    softmax). Or let :func:`sparsify_output` do both for a decoder that is already built.

    Example::

        >>> from fairseq.models.lstm import LSTMDecoder
        >>> class SparseDecoder(EntmaxOutputMixin, LSTMDecoder):
        ...     output_alpha = 2.0
        >>> issubclass(SparseDecoder, LSTMDecoder), SparseDecoder.output_alpha
        (True, 2.0)
    """

    output_alpha: float = 1.5
    output_temperature: float = 1.0
    updates_done: int = 0

    @torch.jit.unused
    def set_num_updates(self, num_updates: int) -> None:
        """fairseq calls it before each update; criterion ``entmax_loss`` reads it."""
        self.updates_done = num_updates
        stock = getattr(super(), "set_num_updates", None)
        if stock is not None:
            stock(num_updates)

    @torch.jit.unused
    def output_weights(self) -> Optional[Tuple[Tensor, Optional[Tensor]]]:
        """Weight (V, d) and bias of the output layer, if it is one linear map of the features;
        else None, which keeps the fused loss away from this decoder.
        """
        return output_weights_of(self)

    @torch.jit.unused
    def features_for_scores(self) -> ContextManager[List[Tensor]]:
        """Within it the decoder returns features where it would return scores."""
        return features_for_scores(self)

    @torch.jit.unused
    def next_token_layer(self, temperature: float) -> Optional[NextTokenLayer]:
        """The output layer for a run of decoding with scores divided by ``temperature``; None if
        it is no single linear map or its probabilities are computed elsewhere.
        """
        cls: Any = type(self)
        here = cls.get_normalized_probs is FairseqDecoder.get_normalized_probs
        own = EntmaxOutputMixin.get_normalized_probs_scriptable
        here &= cls.get_normalized_probs_scriptable is own
        weights = self.output_weights() if here and self.output_alpha > 1 else None
        if weights is None:
            return None
        return next_token_layer(*weights, self.output_alpha, self.output_temperature * temperature)

    def get_normalized_probs_scriptable(
        self,
        net_output: Tuple[Tensor, Optional[Dict[str, List[Optional[Tensor]]]]],
        log_probs: bool,
        sample: Optional[Dict[str, Tensor]] = None,
    ) -> Tensor:
        """p = entmax_alpha(scores / T) in float32, or its logarithm (-inf where p = 0).

        T is the output's temperature; softmax has none.

        Args:
            net_output: the decoder's output, scores (..., V) first.
            log_probs: return log p.
            sample: ignored; fairseq's adaptive softmax reads its target.
        """
        scores = net_output[0].float()
        if self.output_alpha == 1.0:
            return torch.log_softmax(scores, -1) if log_probs else torch.softmax(scores, -1)
        if self.output_temperature != 1.0:
            scores = scores / self.output_temperature
        if torch.jit.is_scripting():
            probs = entmax_dense(scores, self.output_alpha)
            return probs.log() if log_probs else probs
        return self.sparse_probs(scores, log_probs)

    @torch.jit.unused
    def sparse_probs(self, scores: Tensor, log_probs: bool) -> Tensor:
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

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A class of :func:`sparse_class` has no name that pickle could find it by."""
        stock = vars(type(self)).get("stock_class")
        if stock is None:
            return super().__reduce_ex__(protocol)
        return _new_sparse, (stock,), self.__dict__


def sparsify_output(
    decoder: FairseqDecoder, alpha: float, temperature: float = 1.0
) -> FairseqDecoder:
    """Give a built decoder, wherever it is held, entmax in its output layer; returns it.

    p = entmax_alpha(z / T) of the scores z, at alpha > 1.

    Raises:
        ValueError: alpha < 1, a temperature that is no number above 0, or it has an adaptive
            softmax (which alpha = 1 leaves as it is).

    Example::

        >>> from fairseq.data import Dictionary
        >>> from fairseq.models.fconv import FConvDecoder
        >>> decoder = sparsify_output(FConvDecoder(Dictionary(), convolutions=((8, 3),)), 2.0)
        >>> scores = torch.tensor([[[2.0, 1.0, 0.0]]])
        >>> decoder.get_normalized_probs((scores, None), log_probs=False).tolist()
        [[[1.0, 0.0, 0.0]]]
    """
    check_output_alpha(alpha)
    check_output_temperature(temperature, alpha)
    adaptive = getattr(decoder, "adaptive_softmax", None)
    if adaptive is not None:
        if alpha == 1:
            return decoder
        cutoff = f"--adaptive-softmax-cutoff {','.join(map(str, adaptive.cutoff))}"
        raise ValueError(_ADAPTIVE.format(flag=cutoff, alpha=alpha))
    if not isinstance(decoder, EntmaxOutputMixin):
        stock: Any = type(decoder)
        # models hold their decoder in places of their own, or share it
        decoder.__class__ = sparse_class(stock)
    decoder.output_alpha = float(alpha)
    decoder.output_temperature = float(temperature)
    return decoder


@lru_cache(maxsize=None)
def sparse_class(stock: Any) -> Any:
    """The decoder class with entmax probabilities, one for each stock class."""
    bases = (EntmaxOutputMixin, stock)
    return type(f"Entmax{stock.__name__}", bases, {"stock_class": stock, "__doc__": stock.__doc__})


def _new_sparse(stock: Any) -> FairseqDecoder:
    cls = sparse_class(stock)
    return cls.__new__(cls)


def narrow_scores(decoder: nn.Module) -> None:
    """Start a sparse output with features of norm 1: the last layer norm's gain is d ** -0.5.

    fairseq's start, features of norm d ** 0.5, gives scores a standard deviation of 1. alpha-entmax
    drops what is 1 / (alpha - 1) behind, so of 4,000 words about 100 would be possible, at random,
    and the others get no gradient but as answers; dropout's noise, half a deviation, is as large
    as the leads that matter. examples/translation/RESULTS.md has what it changes.

    For a decoder that is not trained yet; one without a last layer norm stays as it is.
    """
    norm = getattr(decoder, "layer_norm", None)
    layers = getattr(decoder, "layers", None)
    if norm is None and layers:  # normalised after each layer
        norm = getattr(layers[-1], "final_layer_norm", None)
    gain = getattr(norm, "weight", None)
    if isinstance(gain, nn.Parameter):  # not so where it is sharded
        with torch.no_grad():
            gain.mul_(gain.numel() ** -0.5)


def check_output_alpha(alpha: float) -> None:
    """Raises:
    ValueError: no alpha of an output layer.
    """
    if not 1 <= alpha < math.inf:
        raise ValueError(f"--output-alpha must be >= 1 and finite ({KNOWN_ALPHAS}), got {alpha}")


def check_output_temperature(temperature: float, alpha: float) -> None:
    """Refuse what cannot divide scores, or would divide those of a softmax."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"--output-temperature must be a number > 0, got {temperature}")
    if alpha == 1 and temperature != 1:
        raise ValueError(
            f"--output-temperature {temperature:g} is for a sparse output, and --output-alpha is "
            "1: drop it"
        )


def check_output_args(args: Any) -> None:
    """Refuse, when a model is built, what cannot be trained with a sparse output.

    Raises:
        ValueError: alpha < 1, adaptive softmax, or a criterion that needs log-probabilities.
    """
    check_output_alpha(args.output_alpha)
    criterion = criterion_name(args)
    if args.output_alpha > 1 and criterion == "adaptive_loss":
        flag = "--criterion adaptive_loss"
        raise ValueError(_ADAPTIVE.format(flag=flag, alpha=args.output_alpha))
    if args.output_alpha > 1 and needs_log_probs(criterion):
        raise ValueError(
            f"--criterion {criterion} has no gradient outside the support of a sparse output "
            f"(--output-alpha {args.output_alpha}): use `--criterion {_instead_of(criterion)}` "
            "(--label-smoothing keeps its meaning), or set `--output-alpha 1`."
        )


def criterion_name(args: Any) -> str:
    """The criterion on the command line or in a configuration; "" if there is none."""
    criterion = getattr(args, "criterion", None)
    return getattr(criterion, "_name", criterion) or ""


def needs_log_probs(criterion: str) -> bool:
    """Whether a criterion of fairseq trains through log-probabilities of all words."""
    return "cross_entropy" in criterion or criterion in _CROSS_ENTROPIES


def _instead_of(criterion: str) -> str:
    if "masked_lm" in criterion:
        return "masked_entmax_loss"
    return "entmax_loss_with_alignment" if "alignment" in criterion else "entmax_loss"
