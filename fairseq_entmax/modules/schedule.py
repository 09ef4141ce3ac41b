"""Alphas that move while a model is trained, and what else goes from one value to another."""

import sys
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, TypeVar

import torch
from torch import Tensor, nn

from .attentions import is_attention
from .luong_attention import EntmaxLuongAttention
from .multihead_attention import EntmaxMultiheadAttention
from .output import EntmaxOutputMixin

Model = TypeVar("Model", bound=nn.Module)


class Ramp(NamedTuple):
    """``first`` until update ``begin``, ``last`` from update ``end`` on, a straight line between.

    With ``begin`` = ``end`` it is a step at that update.

    Example::

        >>> Ramp(1.0, 1.5, 100, 300).at(200)
        1.25
    """

    first: float
    last: float
    begin: int
    end: int

    def at(self, update: int) -> float:
        """The value before the update that follows ``update`` others."""
        if update >= self.end:
            return self.last
        if update <= self.begin:
            return self.first
        passed = (update - self.begin) / (self.end - self.begin)
        return self.first + (self.last - self.first) * passed


def _ramp(words: Sequence[Any], lowest: float, highest: float) -> Optional[Ramp]:
    """FROM, TO, BEGIN, END, or None where they are no ramp between such values."""
    try:
        first, last, begin, end = words
        ramp = Ramp(float(first), float(last), int(begin), int(end))
    except ValueError:
        return None
    fits = all(lowest <= value <= highest for value in (ramp.first, ramp.last))
    return ramp if fits and 0 <= ramp.begin <= ramp.end else None


def read_alpha_ramp(flag: str, text: str, alpha: float) -> Ramp:
    """FROM:BEGIN:END, the way to ``alpha``.

    Raises:
        ValueError: it is no such text, or FROM is no alpha.

    Example::

        >>> read_alpha_ramp("--output-alpha-schedule", "1:0:2000", 1.5)
        Ramp(first=1.0, last=1.5, begin=0, end=2000)
    """
    first, *updates = text.split(":")
    ramp = _ramp([first, alpha, *updates], 1, sys.float_info.max)
    if ramp is None:
        raise ValueError(
            f"{flag} must be FROM:BEGIN:END, an alpha >= 1 and the updates between which it goes "
            f"to {alpha:g}, such as 1:0:2000; got {text!r}"
        )
    return ramp


def _set_output(decoder: Any, alpha: float, temperature: float) -> None:
    decoder.output_alpha, decoder.output_temperature = alpha, temperature


def _set_attention(attention: Any, alpha: float, temperature: float) -> None:
    attention.alpha = alpha
    if isinstance(attention, EntmaxMultiheadAttention):
        attention.scaling = attention.head_dim**-0.5 / temperature


class _Moved(NamedTuple):
    """Something with an alpha, and how to set it."""

    ramp: Ramp
    temperature: float  # where the alpha is ramp.last
    owner: nn.Module
    set_to: Callable[[Any, float, float], None]

    def move(self, num_updates: int) -> None:
        alpha, last = self.ramp.at(num_updates), self.ramp.last
        share = 1.0 if alpha == last else (alpha - 1) / (last - 1)
        self.set_to(self.owner, alpha, self.temperature**share)


def read_share(flag: str, text: str) -> Ramp:
    """A share in [0, 1], or FROM:TO:BEGIN:END.

    Raises:
        ValueError: it is neither.

    Example::

        >>> read_share("--softmax-share", "1:0:0:2000").at(500)
        0.75
    """
    words = text.split(":")
    ramp = _ramp([text, text, "0", "0"] if len(words) == 1 else words, 0, 1)
    if ramp is None:
        raise ValueError(
            f"{flag} must be a share from 0 to 1, or FROM:TO:BEGIN:END, two shares and the updates "
            f"between which it goes from one to the other, such as 1:0:0:2000; got {text!r}"
        )
    return ramp


class AlphaSchedule(nn.Module):
    """Moves alphas with the number of updates, which it keeps in the model's state.

    A checkpoint is decoded with the alphas that it had reached, and resumed where they were. A
    temperature T goes with its alpha, as T ** ((alpha - 1) / (last - 1)): 1 where alpha is 1.

    Example::

        >>> decoder = EntmaxOutputMixin()  # of a decoder, with output_alpha = 1.5
        >>> schedule = AlphaSchedule()
        >>> schedule.move_output(decoder, "1:0:200")  # softmax first, 1.5 from update 200 on
        >>> schedule.set_num_updates(100)
        >>> decoder.output_alpha
        1.25
    """

    num_updates: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))
        self._moved: List[_Moved] = []

    def move_output(self, decoder: nn.Module, schedule: str) -> None:
        """The alpha of an output layer above 1, and its temperature; FROM:BEGIN:END."""
        owner: Any = decoder
        ramp = read_alpha_ramp("--output-alpha-schedule", schedule, owner.output_alpha)
        self._add(_Moved(ramp, owner.output_temperature, owner, _set_output))

    def move_attention(self, attention: nn.Module, schedule: str) -> None:
        """The alpha of an attention above 1, and its temperature; FROM:BEGIN:END.

        Raises:
            ValueError: it learns its alpha, or is of a kind that cannot change it.
        """
        if not isinstance(attention, (EntmaxMultiheadAttention, EntmaxLuongAttention)):
            raise ValueError(
                f"--attention-alpha-schedule: {type(attention).__name__} keeps the alpha that it "
                "was built with"
            )
        if attention.learned_alpha is not None:
            raise ValueError(
                "--attention-alpha-schedule and --learn-attention-alpha both move alpha: drop one"
            )
        ramp = read_alpha_ramp("--attention-alpha-schedule", schedule, attention.alpha)
        temperature = 1.0
        if isinstance(attention, EntmaxMultiheadAttention):
            temperature = float(attention.head_dim**-0.5 / attention.scaling)
        self._add(_Moved(ramp, temperature, attention, _set_attention))

    def _add(self, moved: _Moved) -> None:
        self._moved.append(moved)
        moved.move(int(self.num_updates))

    def set_num_updates(self, num_updates: int) -> None:
        """fairseq calls it before each update."""
        self.num_updates.fill_(num_updates)
        for moved in self._moved:
            moved.move(num_updates)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """A checkpoint without it, as in ``--finetune-from-model``, begins at update 0."""
        state_dict.setdefault(f"{prefix}num_updates", torch.zeros_like(self.num_updates))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.set_num_updates(int(self.num_updates))


def schedule_alphas(
    model: Model, output: Optional[str] = None, attention: Optional[str] = None
) -> Model:
    """Let the alphas of a sparse model come to where they stand only while it is trained.

    alpha = FROM until update BEGIN, then in a straight line, from update END on what it is now.

    Args:
        model: made sparse by :func:`fairseq_entmax.modules.sparsify`.
        output: FROM:BEGIN:END for its output layer; None leaves it.
        attention: the same for all of its attention that is sparse.

    Returns:
        The same model, with ``model.alpha_schedule`` where one was asked for.

    Raises:
        ValueError: no FROM:BEGIN:END, or nothing in the model that it could move.

    Example::

        >>> from fairseq.models.transformer import TransformerModel
        >>> from fairseq_entmax.modules import schedule_alphas, sparsify
        >>> def build_model(cls, args, task):  # of a model of yours
        ...     model = TransformerModel.build_model(args, task)
        ...     return schedule_alphas(sparsify(model), output="1:0:2000")
    """
    if output is None and attention is None:
        return model
    schedule = AlphaSchedule()
    if output is not None:
        decoders = [m for m in model.modules() if isinstance(m, EntmaxOutputMixin)]
        for decoder in _movable("output", output, model, decoders, "output_alpha"):
            schedule.move_output(decoder, output)
    if attention is not None:
        attentions = [m for m in model.modules() if is_attention(m)]
        for module in _movable("attention", attention, model, attentions, "alpha"):
            schedule.move_attention(module, attention)
    model.alpha_schedule = schedule
    return model


def _movable(kind: str, text: str, model: nn.Module, found: List[Any], name: str) -> List[Any]:
    movable = [module for module in found if getattr(module, name, 1) > 1]
    if not movable:
        raise ValueError(
            f"--{kind}-alpha-schedule {text}: the {kind} of {type(model).__name__} has no alpha "
            "above 1 that could be reached"
        )
    return movable
