"""Runs the kernels in Triton's interpreter; a script: ``python -m ...interpreted FOLDER``.

The switch for the interpreter is read when Triton is first imported, hence a process of its own.
``FOLDER/found.pt`` is {name of the case: {what: tensor}}.
"""

import os
import sys
from pathlib import Path
from typing import Dict

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

from fairseq_entmax.kernels import triton
from fairseq_entmax.kernels.triton import launch

from .cases import CASES, Case

# small tiles: the interpreter is slow, and a row shall be more than one of them
SMALL = {"_TILE": 64, "_BLOCK": 256, "_SUB": 32, "_AT_ONCE": 4}
# up to how many columns a row is short, and up to how many it is resident
LIMITS = {"short": (64, 64), "resident": (0, 1024), "streamed": (0, 0)}


def found(case: Case) -> Dict[str, Tensor]:
    """What the kernels make of the case's rows."""
    for name, value in SMALL.items():
        setattr(launch, name, value)
    launch._SHORT_ROW, launch._RESIDENT_ROW = LIMITS[case.kernel]
    z, y, exponent = case.scores(), case.target(), case.exponent()
    probs = triton.entmax(z, **exponent)
    results = {
        "probs": probs,
        "log_probs": triton.log_entmax(z, **exponent),
        "backward": triton.entmax_backward(probs, case.grad(), **exponent),
    }
    if case.kernel == "streamed":  # the loss has no other
        solved = triton.solve_loss(z, y, capacity=case.capacity, **exponent)
        scale = torch.arange(1.0, len(z) + 1)
        results["gradient"] = triton.loss_backward(z, solved=solved, grad=scale, **exponent)
        results.update(solved._asdict())
    return results


def main() -> None:
    """Computes all cases."""
    torch.set_num_threads(1)
    results = {name: found(case) for name, case in CASES.items()}
    torch.save(results, str(Path(sys.argv[1]) / "found.pt"))


if __name__ == "__main__":
    main()
