"""Run by check_install.sh in a fresh environment: what was installed is whole."""

import shutil
from importlib.metadata import metadata
from pathlib import Path

import torch

import fairseq_entmax
from fairseq_entmax.functional import entmax
from fairseq_entmax.kernels.native.library import library

assert (Path(fairseq_entmax.__file__).parent / "py.typed").is_file()
assert metadata("fairseq_entmax")["Version"] == fairseq_entmax.__version__
assert metadata("fairseq_entmax")["License-Expression"] == "MIT"
assert entmax(torch.tensor([2.0, 1.5, -1.0, 0.8]), 1.5)[2] == 0
assert library() is not None or shutil.which("cc") is None, "the compiled kernels are missing"
