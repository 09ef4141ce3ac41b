"""A training that goes on with other alphas than its checkpoint was trained with says so."""

import functools
import logging
from typing import Any, Dict

from fairseq import checkpoint_utils
from fairseq.trainer import Trainer

logger = logging.getLogger(__name__)

_MARK = "_fairseq_entmax_resuming"


def alphas_in(settings: Any) -> Dict[str, float]:
    """The alphas among the settings of a model, by name."""
    names = settings.keys() if hasattr(settings, "keys") else vars(settings)
    alphas = {name: getattr(settings, name) for name in names if name.endswith("_alpha")}
    return {name: alpha for name, alpha in alphas.items() if isinstance(alpha, float)}


def warn_of_other_alphas() -> None:
    """Let fairseq's trainer compare what it loads with what it trains."""
    load = Trainer.load_checkpoint
    if hasattr(load, _MARK):
        return

    @functools.wraps(load)
    def load_checkpoint(trainer: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        read, settings = checkpoint_utils.load_checkpoint_to_cpu, []

        @functools.wraps(read)
        def noted(*read_args: Any, **read_kwargs: Any) -> Any:
            state = read(*read_args, **read_kwargs)
            settings.append((state.get("cfg") or {}).get("model"))
            return state

        checkpoint_utils.load_checkpoint_to_cpu = noted
        try:
            loaded = load(trainer, filename, *args, **kwargs)
        finally:
            checkpoint_utils.load_checkpoint_to_cpu = read
        for saved in settings:
            _compare(filename, {} if saved is None else alphas_in(saved), trainer.cfg.model)
        return loaded

    setattr(load_checkpoint, _MARK, True)
    Trainer.load_checkpoint = load_checkpoint


def _compare(filename: str, saved: Dict[str, float], model: Any) -> None:
    now = alphas_in(model)
    for name, alpha in saved.items():
        if now.get(name, alpha) != alpha:
            flag = "--" + name.replace("_", "-")
            logger.warning(
                "%s was trained with %s %g and goes on with %g", filename, flag, alpha, now[name]
            )
