"""What ``--model-overrides`` changes in a checkpoint."""

from argparse import Namespace
from typing import Any, Dict

from fairseq import checkpoint_utils
from omegaconf import OmegaConf

from .repairs import repair
from .wrapping import wrap


def _misses_nested_names() -> bool:
    cfg = OmegaConf.create({"model": Namespace(arch="lstm")}, flags={"allow_objects": True})
    checkpoint_utils.overwrite_args_by_name(cfg, {"model": {"arch": "lstm_entmax"}})
    return bool(cfg.model.arch != "lstm_entmax")


@repair(_misses_nested_names)
def override_settings_of_models() -> None:
    """Let ``--model-overrides "{'model': {'_name': 'lstm_entmax'}}"`` change the model alone.

    Fault: of a checkpoint of fairseq-train, whose model is a Namespace, only flat names are
    changed, and ``_name`` then in every group, the task's too.
    Versions: every fairseq. Test: tests/models/test_forks.py::test_*.
    """

    def overwrite_args_by_name(original: Any, cfg: Any, overrides: Dict[str, Any]) -> None:
        nested = {
            group: values
            for group, values in overrides.items()
            if isinstance(values, dict) and isinstance(cfg.get(group), Namespace)
        }
        original(cfg, {name: v for name, v in overrides.items() if name not in nested})
        for group, values in nested.items():
            vars(cfg[group]).update(values)

    wrap(checkpoint_utils, "overwrite_args_by_name", overwrite_args_by_name)
