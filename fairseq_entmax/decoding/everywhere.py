"""Every generator of a sparse model, however it was built, searches right with p = 0.

fairseq's beam search ends a sentence only with ``beam`` finished hypotheses of p > 0, or fails for
the whole batch (``AssertionError: 200 < 200``). Commands, hub and validation ask
``task.build_generator``; online back-translation, mBART's task and user code build their own.
TorchScript compiles the stock search inside, which knows nothing of p = 0.

A sparse language model beside a translation model (``--lm-path``) vetoes words: log p + w log q is
-inf where its q = 0, so the search is the sparse one whatever the translation model is.
"""

import functools
import math
from typing import Any, Iterable, Optional

from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks import FairseqTask
from torch import nn

from .sparse_beam import make_sparse

_MARK = "_fairseq_entmax_search"


def output_alpha_of(model: nn.Module) -> Optional[float]:
    """The alpha of a model's output layer; None for a model that knows only softmax."""
    decoder = getattr(model, "decoder", model)
    return getattr(decoder, "output_alpha", None)


def is_sparse(models: Iterable[Any]) -> bool:
    """Whether one of the models, or of the ensemble, has words with p = 0."""
    return any((output_alpha_of(model) or 1) > 1 for model in getattr(models, "models", models))


def fuse_sparse_language_model(generator: Any) -> bool:
    """Whether the generator adds w log q of a sparse language model, q = 0 being a veto.

    With w = 0 the language model is taken out: 0 * -inf is NaN, which fairseq takes for a veto.

    Raises:
        ValueError: w is negative, so that a word of q = 0 would be infinitely good, or no number.
    """
    language_model, weight = generator.lm_model, generator.lm_weight
    if language_model is None or not is_sparse([language_model]):
        return False
    if not 0 <= weight < math.inf:
        raise ValueError(
            f"--lm-weight must be a number >= 0 with a sparse language model, whose words of "
            f"probability zero have log-probability -inf, got {weight}"
        )
    if weight == 0:
        generator.lm_model = None
    return bool(weight > 0)


def check_generation_args(args: Any) -> None:
    """Raises a ValueError for a beam or n-best list of no length."""
    for name in ("beam", "nbest"):
        value = getattr(args, name, 1)
        if value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")


def check_parameters(models: Iterable[Any]) -> None:
    """Raises a ValueError for a model that is NaN or infinite: its answers would be empty."""
    for model in models:
        for name, parameter in model.named_parameters():
            # the largest is NaN where one is; a bias of -inf forbids a word
            if parameter.numel() and not bool(parameter.amax() < math.inf):
                raise ValueError(
                    f"the model's parameter {name} is NaN or infinite: its training has diverged, "
                    "decode with an earlier checkpoint"
                )


def install() -> None:
    """Adapt what fairseq builds from now on; once per process."""
    if hasattr(SequenceGenerator.__init__, _MARK):
        return
    build, ask = SequenceGenerator.__init__, FairseqTask.build_generator

    @functools.wraps(build)
    def __init__(self: Any, models: Any, *args: Any, **kwargs: Any) -> None:
        build(self, models, *args, **kwargs)
        if fuse_sparse_language_model(self) or is_sparse(models):
            make_sparse(self)

    @functools.wraps(ask)
    def build_generator(task: Any, models: Any, *args: Any, **kwargs: Any) -> Any:
        options = args[0] if args else kwargs["args"]
        check_generation_args(options)
        generator = ask(task, models, *args, **kwargs)
        if is_sparse(models) and isinstance(generator, SequenceGenerator):
            check_parameters(models)
            # the hub hands out all hypotheses of the beam, whatever its `nbest` is
            printed = "prefix_allowed_tokens_fn" not in kwargs
            make_sparse(generator, getattr(options, "nbest", 0) if printed else 0)
        return generator

    setattr(__init__, _MARK, True)
    SequenceGenerator.__init__ = __init__
    FairseqTask.build_generator = build_generator
