"""What is left where torch is older than the installed one."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from fairseq_entmax.compat import checkpoints

# a torch without the list of what a checkpoint may hold, which loads what it is given
AS_BEFORE_2_4 = """
import logging, sys
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
import torch
del torch.serialization.add_safe_globals
load = torch.load
torch.load = lambda *args, **kwargs: load(*args, **{**kwargs, "weights_only": False})
import fairseq_entmax
from fairseq import checkpoint_utils
for path in sys.argv[1:]:
    checkpoint_utils.load_checkpoint_to_cpu(path)
"""


def saved(path):
    history = {"num_updates": 1, "lr_scheduler_state": {}, "optimizer_name": ""}
    state = {"model": {}, "args": None, "cfg": {}, "optimizer_history": [history]}
    torch.save({**state, "extra_state": {"train_iterator": {"epoch": 1}}}, str(path))
    return str(path)


def test_old_torch_is_named_once(tmp_path):
    paths = [saved(tmp_path / "one.pt"), saved(tmp_path / "two.pt")]
    done = subprocess.run(
        [sys.executable, "-c", AS_BEFORE_2_4, *paths],
        env=dict(os.environ),
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING torch ")]
    assert len(warnings) == 1
    assert torch.__version__ in warnings[0] and paths[0] in warnings[0]
    assert "load only files that you trust" in warnings[0]


def test_new_torch_is_not_named(tmp_path, caplog):
    if not checkpoints.CAN_CHECK:
        pytest.skip("this torch cannot check a checkpoint")
    with caplog.at_level(logging.WARNING):
        checkpoints.checkpoint_utils.load_checkpoint_to_cpu(saved(tmp_path / "one.pt"))
    assert not caplog.records


@pytest.mark.skipif(not checkpoints.CAN_CHECK, reason="this torch has no list")
def test_old_torch_can_read_the_list():
    """torch 2.4 and 2.5 look each entry up by these names, and know no pairs of entry and name."""
    for entry in torch.serialization.get_safe_globals():
        assert isinstance(entry.__module__, str) and isinstance(entry.__name__, str), entry
