"""Checkpoints of forks of fairseq that keep alpha in their criterion, and no alpha in the model.

There ``--arch transformer --criterion entmax_loss --loss-alpha 1.5`` (or ``fyls_loss``) trains a
stock model, whose own probabilities are softmax: loaded as it is, it decodes what it was not
trained for.
"""

import functools
import logging
from typing import Any, Optional

from fairseq import checkpoint_utils
from fairseq.models import ARCH_MODEL_REGISTRY

logger = logging.getLogger(__name__)

CRITERIONS = ("entmax_loss", "fyls_loss")
_MARK = "_fairseq_entmax_forks"


def alpha_of_criterion(cfg: Any) -> Optional[float]:
    """The alpha with which a fork trained a model that knows none, from a checkpoint's settings;
    None for any other checkpoint.
    """
    criterion = cfg["criterion"]
    name, alpha = (getattr(criterion, key, None) for key in ("_name", "loss_alpha"))
    if name not in CRITERIONS or alpha is None or hasattr(cfg["model"], "output_alpha"):
        return None
    return float(alpha)


def override_for(model: Any, alpha: float) -> Optional[str]:
    """The ``--model-overrides`` with which a model with these settings decodes as it was trained:
    its sparse twin, attention softmax as it was. None if its arch has no twin.
    """
    twin = f"{model._name}_entmax"
    if twin not in ARCH_MODEL_REGISTRY:
        return None
    return repr({"model": {"_name": twin, "output_alpha": alpha, "attention_alpha": 1.0}})


def warn_of_forks() -> None:
    """Let the loading of such a checkpoint say so, and what to do."""
    load = checkpoint_utils.load_checkpoint_to_cpu
    if hasattr(load, _MARK):
        return

    @functools.wraps(load)
    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> Any:
        state = load(path, *args, **kwargs)
        cfg = state.get("cfg")
        alpha = None if cfg is None else alpha_of_criterion(cfg)
        if alpha is not None and alpha > 1:
            override = override_for(cfg["model"], alpha)
            logger.warning(
                "%s was trained with an entmax loss (alpha %g) by a fork of fairseq that keeps "
                "alpha in the criterion: AS IT IS IT DECODES WITH SOFTMAX, which it was not "
                "trained for (docs/coming-from.md). %s",
                path,
                alpha,
                f'Give --model-overrides "{override}"' if override else "Its arch has no twin.",
            )
        return state

    setattr(load_checkpoint_to_cpu, _MARK, True)
    checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu
