"""The sparse twin of every attention that fairseq has."""

from functools import lru_cache
from types import FunctionType
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple, Type

import torch
from fairseq.models import fconv, lstm
from fairseq.models.speech_to_text.berard import MLPAttention
from fairseq.modules import MultiheadAttention
from fairseq.modules.downsampled_multihead_attention import SingleHeadAttention
from fairseq.modules.espnet_multihead_attention import ESPNETMultiHeadedAttention
from fairseq.modules.location_attention import LocationAttention
from torch import nn

from fairseq_entmax.functional import entmax

from .luong_attention import EntmaxLuongAttention
from .multihead_attention import EntmaxMultiheadAttention, default_temperature

# multi-head attention with scaled scores; the temperature is for these
_SCALED = (MultiheadAttention, ESPNETMultiHeadedAttention)
# these call a function named softmax and know no other way in
_PLAIN = (
    fconv.AttentionLayer,
    MLPAttention,
    SingleHeadAttention,
    LocationAttention,
    ESPNETMultiHeadedAttention,
)
_ATTENTIONS = (MultiheadAttention, lstm.AttentionLayer, EntmaxLuongAttention, *_PLAIN)


class SparseAttention(NamedTuple):
    """How an attention is to normalise its scores."""

    alpha: float
    learn_alpha: bool = False
    temperature: Optional[float] = None  # of scaled multi-head attention; None is 4 ** (alpha - 1)
    score: Optional[str] = None  # of the LSTM's; None keeps it


def is_attention(module: nn.Module) -> bool:
    """Whether it has a twin, or is one."""
    return isinstance(module, _ATTENTIONS)


def has_temperature(attention: nn.Module) -> bool:
    """Whether its scores are scaled, so that a temperature divides them."""
    return isinstance(attention, _SCALED)


def has_score(attention: nn.Module) -> bool:
    """Whether it is the LSTM's, with a choice of scores."""
    return isinstance(attention, (lstm.AttentionLayer, EntmaxLuongAttention))


def is_self_attention(module: nn.Module, name: str) -> bool:
    """Whether queries and keys are of one sequence; ``name`` is its place in the decoder."""
    declared = getattr(module, "encoder_decoder_attention", None)
    return "self" in name if declared is None else not declared


def sparse_twin_of(attention: nn.Module, wanted: SparseAttention) -> nn.Module:
    """The attention with entmax, sharing its parameters; itself where alpha is 1.

    Raises:
        ValueError: it cannot learn its alpha, or has a softmax of its own (a subclass of fairseq's
            multi-head attention).

    Example::

        >>> twin = sparse_twin_of(MultiheadAttention(4, 2), SparseAttention(alpha=1.5))
        >>> type(twin).__name__
        'EntmaxMultiheadAttention'
    """
    alpha, learn_alpha, temperature, score = wanted
    if isinstance(attention, MultiheadAttention):
        if type(attention) not in (MultiheadAttention, EntmaxMultiheadAttention):
            raise ValueError(
                f"{type(attention).__name__} has a softmax of its own and no sparse twin: set its "
                f"attention alpha to 1 (got {alpha})"
            )
        twin: nn.Module = EntmaxMultiheadAttention.from_stock(
            attention, alpha, learn_alpha, temperature
        )
        return twin
    if has_score(attention):
        return EntmaxLuongAttention.from_stock(attention, alpha, score, learn_alpha)
    if learn_alpha:
        raise ValueError(f"{type(attention).__name__} cannot learn its alpha")
    stock: Any = getattr(attention, "stock_class", type(attention))
    if temperature is None:
        temperature = default_temperature(alpha) if has_temperature(attention) else 1.0
    attention.__class__ = stock if alpha == 1 else with_entmax(stock, alpha, temperature)
    return attention


class _Rebuilt:
    """Classes that are made at run time have no name that pickle could find them by."""

    stock_class: Type[nn.Module]
    entmax: Tuple[float, float]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _new, (self.stock_class, *self.entmax), self.__dict__


def _new(stock: Any, alpha: float, temperature: float) -> Any:
    cls = with_entmax(stock, alpha, temperature)
    return cls.__new__(cls)


@lru_cache(maxsize=None)
def with_entmax(stock: Any, alpha: float, temperature: float) -> Any:
    """A subclass whose methods call entmax where those of ``stock`` call softmax."""
    methods = {
        name: _rebound(function, _normaliser(alpha, temperature))
        for base in reversed(stock.__mro__)
        for name, function in vars(base).items()
        if isinstance(function, FunctionType) and "softmax" in function.__code__.co_names
    }
    members = {"stock_class": stock, "entmax": (alpha, temperature), "alpha": alpha}
    return type(f"Entmax{stock.__name__}", (_Rebuilt, stock), {**methods, **members})


def _normaliser(alpha: float, temperature: float) -> Callable[..., torch.Tensor]:
    def softmax(scores: torch.Tensor, dim: int) -> torch.Tensor:
        return entmax(scores if temperature == 1 else scores / temperature, alpha, dim)

    return softmax


def _rebound(function: FunctionType, softmax: Callable[..., torch.Tensor]) -> Any:
    """The same function where ``F.softmax`` or ``torch.softmax`` is ``softmax``."""
    seen: Dict[str, Any] = {
        name: _Functions(function.__globals__[name], softmax)
        for name in ("F", "torch")
        if name in function.__globals__
    }
    twin = FunctionType(
        function.__code__,
        {**function.__globals__, **seen},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    # TorchScript would compile the source, which says softmax
    return torch.jit.ignore(twin)


class _Functions:
    """``torch`` or ``torch.nn.functional`` with another softmax."""

    def __init__(self, module: Any, softmax: Callable[..., torch.Tensor]) -> None:
        self.module, self.softmax = module, softmax

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)
