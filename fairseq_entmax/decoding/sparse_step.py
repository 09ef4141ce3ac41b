"""Beam search on the support alone: a step that never holds the probabilities of all words.

fairseq's loop asks the model for log p of V words and then looks at all of them several times:
for NaN, padding, unknown words, length limits, and the best 2 * beam. With a sparse output layer
those 2 * beam come from the support. :class:`SparseStep` stands in the place of the model's
``forward_decoder`` and gives the loop a narrow matrix of *places* instead: the special symbols at
their own numbers, then the most probable other words of each prefix. Choices among places are the
choices among words; :meth:`SparseStep.words` names the words.
"""

import contextlib
import math
import os
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from fairseq.models import BaseFairseqModel
from fairseq.models.transformer import TransformerModelBase
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.search import BeamSearch
from torch import Tensor

from fairseq_entmax.functional.next_tokens import NextTokenLayer, NextTokens

_ASK_THE_DECODER = (
    BaseFairseqModel.get_normalized_probs,
    TransformerModelBase.get_normalized_probs,
)
SWITCH = "FAIRSEQ_ENTMAX_SPARSE_STEP"  # "off": log p of all words at every step
_WHOLE_SUPPORT = 128  # words of a support that are listed where all of them are needed
_MOST_SPECIAL = 8  # symbols with places of their own; mBART's end, say, is among the words


def sparse_step(generator: Any, whole: bool, n_forced: int) -> Optional["SparseStep"]:
    """The step for one batch, or None where the loop needs all scores.

    Args:
        generator: a fairseq ``SequenceGenerator`` with a ``SparseSearch``.
        whole: the search needs every word of a support, not only the best (certificates).
        n_forced: so many steps have a forced prefix, and need all words.
    """
    switch = os.environ.get(SWITCH) or getattr(generator, "sparse_step", "auto")
    if switch == "off" or not _takes_places(generator):
        return None
    layers = [_layer(model, generator.temperature) for model in generator.model.models]
    if any(layer is None for layer in layers):
        return None
    return SparseStep(generator, layers, whole or len(layers) > 1, n_forced)


def _takes_places(generator: Any) -> bool:
    """Whether the search asks for nothing but the most probable words of each prefix."""
    blocker = generator.repeat_ngram_blocker
    return (
        type(generator.search.inner) is BeamSearch
        and generator.lm_model is None
        and max(generator.pad, generator.unk, generator.eos) < _MOST_SPECIAL
        and (
            blocker is None
            or (type(blocker) is NGramRepeatBlock and blocker.no_repeat_ngram_size > 1)
        )
    )


def _layer(model: Any, temperature: float) -> Optional[NextTokenLayer]:
    """The output layer of a model whose probabilities are nothing but entmax of its scores."""
    make = getattr(getattr(model, "decoder", None), "next_token_layer", None)
    if make is None or type(model).get_normalized_probs not in _ASK_THE_DECODER:
        return None
    layer: Optional[NextTokenLayer] = make(temperature)
    return layer


class SparseStep:
    """The decoding step of one batch; see :func:`sparse_step`."""

    def __init__(self, generator: Any, layers: List[Any], whole: bool, n_forced: int) -> None:
        self.generator, self.layers = generator, layers
        self.whole, self.n_forced = whole, n_forced
        self.models = list(generator.model.models)
        self.first = max(generator.pad, generator.unk, generator.eos) + 1
        self.stock: Dict[str, Any] = {name: getattr(generator, name) for name in _READ_BY_WORD}
        self.all_words = generator.model.forward_decoder
        self.reorder = generator.model.reorder_encoder_out
        self.ids: Optional[Tensor] = None  # the words at the places of this step
        self.spread = 0  # rows of what the encoder gave, once there is one for each beam

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Within it the generator's loop runs on places."""
        self.generator.model.forward_decoder = self.forward_decoder
        self.generator.model.reorder_encoder_out = self.reorder_encoder_out
        try:
            yield
        finally:
            del self.generator.model.forward_decoder, self.generator.model.reorder_encoder_out
            self._present(None)

    def forward_decoder(
        self, tokens: Tensor, encoder_outs: Any, states: List[Dict[str, Any]], temperature: float
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """As ``EnsembleModel.forward_decoder``: log p (n, places), or (n, V) where all words are
        needed, and the attention.
        """
        if tokens.size(1) <= self.n_forced:
            self._present(None)
            log_probs, attention = self.all_words(tokens, encoder_outs, states, temperature)
            return log_probs, attention
        features, attention = self._features(tokens, encoder_outs, states)
        k = self._most_places(tokens)
        found = [layer.next_tokens(x, self.first, k) for layer, x in zip(self.layers, features)]
        if self.whole and any(bool((each.support_size > k).any()) for each in found):
            most = self.stock["vocab_size"] - self.first
            found = [
                layer.next_tokens(x, self.first, most) for layer, x in zip(self.layers, features)
            ]
        ids, log_probs = found[0][:2] if len(found) == 1 else _union(found)
        self._ban(tokens, ids, log_probs)
        self._present(ids)
        return log_probs, attention

    def reorder_encoder_out(self, encoder_outs: Any, new_order: Tensor) -> Any:
        """As ``EnsembleModel.reorder_encoder_out``, which copies what the encoder gave at every
        step. The beams of a sentence have all the same of it, so that it changes only when a
        sentence leaves, and with it the number of rows; the first time each sentence gets its
        beams. Comparing the numbers themselves would make the host wait for a device.
        """
        unchanged = self.spread == len(new_order)
        self.spread = len(new_order)
        return encoder_outs if unchanged else self.reorder(encoder_outs, new_order)

    def words(self, places: Tensor, beams: Tensor) -> Tensor:
        """The words at these places, (bsz, candidates), of the prefixes of these beams."""
        if self.ids is None:
            return places
        n_places: int = self.ids.size(1)
        ids = self.ids.view(len(places), -1)
        return ids.gather(1, beams * n_places + places)

    def _present(self, ids: Optional[Tensor]) -> None:
        """Let the loop count places, and ban nothing by its number; None: words, as ever."""
        self.ids = ids
        for name, stock in self.stock.items():
            setattr(self.generator, name, stock if ids is None else None)
        if ids is not None:
            self.generator.vocab_size = ids.size(1)

    def _features(
        self, tokens: Tensor, encoder_outs: Any, states: List[Dict[str, Any]]
    ) -> Tuple[List[Tensor], Optional[Tensor]]:
        """What the output layers of the models multiply, (n, d) each, and the attention."""
        features: List[Tensor] = []

        def collect(net_output: Any, **_: Any) -> Tensor:
            features.append(net_output[0][:, -1])
            unread: Tensor = net_output[0][:, :, :1]
            return unread

        with contextlib.ExitStack() as stack:
            for model in self.models:
                stack.enter_context(model.decoder.features_for_scores())
                model.get_normalized_probs = collect
                stack.callback(delattr, model, "get_normalized_probs")
            _, attention = self.all_words(tokens, encoder_outs, states, 1.0)
        return features, attention

    def _most_places(self, tokens: Tensor) -> int:
        """How many words besides the special ones a prefix needs, so that 2 * beam remain when
        all that may be banned are.
        """
        suppressed = self.stock["token_indices_to_suppress"]
        banned = 0 if suppressed is None else len(suppressed)
        banned += 0 if self.stock["repeat_ngram_blocker"] is None else tokens.size(1)
        wanted = _WHOLE_SUPPORT if self.whole else 2 * self.generator.beam_size + banned
        others: int = self.stock["vocab_size"] - self.first
        return min(wanted, others)

    def _ban(self, tokens: Tensor, ids: Tensor, log_probs: Tensor) -> None:
        """No suppressed words, and none that repeats an n-gram of its prefix; in place."""
        suppressed, blocker = (
            self.stock[name] for name in ("token_indices_to_suppress", "repeat_ngram_blocker")
        )
        if suppressed is not None:
            log_probs.masked_fill_(torch.isin(ids, suppressed.to(ids)), -math.inf)
        if blocker is not None and tokens.size(1) >= blocker.no_repeat_ngram_size:
            ngrams = tokens.unfold(1, blocker.no_repeat_ngram_size, 1)  # (n, ngrams, size)
            tail = tokens[:, 1 - blocker.no_repeat_ngram_size :].unsqueeze(1)
            again = (ngrams[:, :, :-1] == tail).all(2, keepdim=True)
            repeats = again & (ngrams[:, :, -1:] == ids.unsqueeze(1))
            log_probs.masked_fill_(repeats.any(1), -math.inf)


# what the loop of a generator reads by the numbers of words
_READ_BY_WORD = ("vocab_size", "repeat_ngram_blocker", "token_indices_to_suppress")


def _union(found: List[NextTokens]) -> Tuple[Tensor, Tensor]:
    """The mean of several models' probabilities: words and log p, (n, places), special ones first.

    The whole supports are listed.
    """
    ids, order = torch.cat([each.tokens for each in found], 1).sort(dim=1)
    probs = torch.cat([each.log_probs for each in found], 1).exp().gather(1, order)
    starts = torch.ones_like(ids, dtype=torch.bool)
    starts[:, 1:] = ids[:, 1:] != ids[:, :-1]
    place = starts.cumsum(1) - 1
    words = torch.zeros_like(ids).scatter_(1, place, ids)
    total = torch.zeros_like(probs).scatter_add_(1, place, probs)
    return words, (total / len(found)).log()
