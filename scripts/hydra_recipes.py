"""Writes examples/translation/hydra/*.yaml from recipes/*.args and the flags of run.sh.

    python scripts/hydra_recipes.py

Run it after a recipe has changed; a test finds files that differ from what it writes.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from fairseq.dataclass.configs import (
    CheckpointConfig,
    CommonConfig,
    DatasetConfig,
    OptimizationConfig,
)
from fairseq.optim.adam import FairseqAdamConfig
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import PolynomialDecayLRScheduleConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "translation"))

import run

from fairseq_entmax.criterions.entmax_loss import EntmaxLossConfig

TRANSLATION = run.HERE
# updates and averaged checkpoints of the recipes for larger corpora, as in their scripts
LENGTHS = {
    "lstm_2019": ("50000", "10"),
    "transformer_iwslt": ("50000", "10"),
    "transformer_wmt": ("100000", "10"),
}
TOKENS = 2048
# where a flag goes: the first group whose dataclass has it, else the model
GROUPS = {
    "common": CommonConfig,
    "optimization": OptimizationConfig,
    "dataset": DatasetConfig,
    "checkpoint": CheckpointConfig,
    "criterion": EntmaxLossConfig,
    "optimizer": FairseqAdamConfig,
    "lr_scheduler": PolynomialDecayLRScheduleConfig,
}
# the flags that choose what a group is
CHOICES = {"arch": "model", **{name: name for name in ("criterion", "optimizer", "lr_scheduler")}}
ORDER = (
    *("common", "task", "model", "criterion", "optimizer", "lr_scheduler", "optimization"),
    *("dataset", "checkpoint"),
)
HEADER = """\
# recipes/{}.args with the flags of run.sh, for fairseq-hydra-train. Give task.data,
# common.user_dir and checkpoint.save_dir as absolute paths. Written by scripts/hydra_recipes.py.
"""


def pairs(flags: List[str]) -> Iterator[Tuple[str, str]]:
    """Name and value of each flag; that of a switch is ``true``."""
    for flag, value in zip(flags, [*flags[1:], "--"]):
        if flag.startswith("--"):
            yield flag[2:].replace("-", "_"), "true" if value.startswith("--") else value


def grouped(flags: List[str]) -> Dict[str, Dict[str, str]]:
    """fairseq-train's flags as the groups of its configuration, in YAML; the last flag wins."""
    groups: Dict[str, Dict[str, str]] = {group: {} for group in ORDER}
    groups["common"]["user_dir"] = groups["task"]["data"] = "???"
    groups["task"] = {"_name": "translation", **groups["task"]}
    for name, value in pairs(flags):
        if name in CHOICES:
            groups[CHOICES[name]] = {"_name": value, **groups[CHOICES[name]]}
            continue
        fields = {group: config.__dataclass_fields__ for group, config in GROUPS.items()}
        group = next((group for group in GROUPS if name in fields[group]), "model")
        groups[group][name] = scalar(value, fields.get(group, {}).get(name))
    return groups


def scalar(value: str, field: Any) -> str:
    text = value if re.fullmatch(r"[\w.-]+", value) else json.dumps(value)
    return f"[{text}]" if field is not None and "List" in str(field.type) else text


def recipe(name: str) -> str:
    """The YAML of a recipe."""
    updates, average = LENGTHS.get(name, (run.DEFAULTS["max-update"], run.DEFAULTS["average"]))
    given = {**run.DEFAULTS, "recipe": name, "max-update": updates, "average": average}
    groups = grouped(run.train_flags(given, TOKENS, Path("checkpoints")))
    lines = [HEADER.format(name).rstrip("\n")]
    for group, values in groups.items():
        lines += [f"{group}:", *(f"  {key}: {value}" for key, value in values.items())]
    return "\n".join(lines)


def main() -> None:
    for path in sorted((TRANSLATION / "recipes").glob("*.args")):
        written = TRANSLATION / "hydra" / f"{path.stem}.yaml"
        run.runner.write_lines(written, [recipe(path.stem)])
        print(written.relative_to(Path.cwd()) if Path.cwd() in written.parents else written)


if __name__ == "__main__":
    main()
