"""Every generator of a sparse model, however it was built, searches right with p = 0.

fairseq's beam search ends a sentence only with ``beam`` finished hypotheses of p > 0, or fails for
the whole batch (``AssertionError: 200 < 200``). Commands, hub and validation ask
``task.build_generator``; online back-translation, mBART's task and user code build their own.
"""

import functools
from typing import Any, Iterable

from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks import FairseqTask

from fairseq_entmax.modules import output_alpha_of

from .sparse_beam import make_sparse

_MARK = "_fairseq_entmax_search"


def is_sparse(models: Iterable[Any]) -> bool:
    """Whether one of the models, or of the ensemble, has words with p = 0."""
    return any((output_alpha_of(model) or 1) > 1 for model in getattr(models, "models", models))


def install() -> None:
    """Adapt what fairseq builds from now on; once per process."""
    if hasattr(SequenceGenerator.__init__, _MARK):
        return
    build, ask = SequenceGenerator.__init__, FairseqTask.build_generator

    @functools.wraps(build)
    def __init__(self: Any, models: Any, *args: Any, **kwargs: Any) -> None:
        build(self, models, *args, **kwargs)
        if is_sparse(models):
            make_sparse(self)

    @functools.wraps(ask)
    def build_generator(task: Any, models: Any, *args: Any, **kwargs: Any) -> Any:
        generator = ask(task, models, *args, **kwargs)
        if is_sparse(models) and isinstance(generator, SequenceGenerator):
            options = args[0] if args else kwargs["args"]
            # the hub hands out all hypotheses of the beam, whatever its `nbest` is
            printed = "prefix_allowed_tokens_fn" not in kwargs
            make_sparse(generator, getattr(options, "nbest", 0) if printed else 0)
        return generator

    setattr(__init__, _MARK, True)
    SequenceGenerator.__init__ = __init__
    FairseqTask.build_generator = build_generator
