"""One checkpoint whose parameters are the mean of the last ones of a training.

python average.py CHECKPOINTS --last 5 --out averaged.pt
"""

import argparse
import re
from pathlib import Path
from typing import Any, Dict, List

import torch

from fairseq_entmax.data.files import read_checkpoint, whole

# fairseq's names: checkpoint_EPOCH_UPDATES.pt and, where an epoch ends, checkpointEPOCH.pt
NUMBERED = re.compile(r"checkpoint_\d+_(\d+)\.pt|checkpoint(\d+)\.pt")


def last_checkpoints(folder: Path, count: int) -> List[Path]:
    """The newest numbered checkpoints, newest last; checkpoint_last.pt if there are none.

    Raises:
        SystemExit: the folder holds no checkpoint.
    """
    found = []
    for path in folder.glob("checkpoint*.pt"):
        match = NUMBERED.fullmatch(path.name)
        if match:
            found.append((int(match.group(1) or match.group(2)), path))
    paths = [path for _, path in sorted(found)[-count:]]
    if not paths and (folder / "checkpoint_last.pt").exists():
        paths = [folder / "checkpoint_last.pt"]
    if not paths:
        raise SystemExit(f"{folder}: no checkpoint to average")
    return paths


def average(paths: List[Path]) -> Dict[str, Any]:
    """The newest checkpoint without its optimizer, its parameters the mean of all.

    Raises:
        SystemExit: the checkpoints are of different models.
    """
    total: Dict[str, torch.Tensor] = {}
    for path in paths:
        checkpoint = read_checkpoint(path)
        model = checkpoint["model"]
        if total and total.keys() != model.keys():
            raise SystemExit(f"{path}: another model than {paths[0]}")
        for name, value in model.items():
            if value.is_floating_point():
                total[name] = total.get(name, 0) + value.double() / len(paths)
            else:
                total[name] = value
    model = checkpoint["model"]
    checkpoint["model"] = {name: total[name].to(value.dtype) for name, value in model.items()}
    checkpoint.pop("last_optimizer_state", None)
    return checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, help="--save-dir of the training")
    parser.add_argument("--last", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    paths = last_checkpoints(args.checkpoints, args.last)
    with whole(args.out) as part:
        torch.save(average(paths), str(part))
    print(f"{args.out}: mean of {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    main()
