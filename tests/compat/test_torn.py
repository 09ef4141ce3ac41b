"""A checkpoint has its name when all of it is written."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from fairseq import checkpoint_utils

import fairseq_entmax  # noqa: F401  what is under test


def saved(path):
    torch.save({"args": None, "cfg": None, "model": {"a": torch.zeros(1000)}}, str(path))
    return path


def test_a_copy_that_breaks_leaves_the_old_file(tmp_path, monkeypatch):
    source, target = saved(tmp_path / "checkpoint1.pt"), tmp_path / "checkpoint_last.pt"
    target.write_bytes(b"the old one")

    def torn(src, dst, *args, **kwargs):
        with open(dst, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", torn)
    monkeypatch.setattr("shutil.copy", torn)
    with pytest.raises((OSError, AssertionError)):
        assert checkpoint_utils.PathManager.copy(str(source), str(target), overwrite=True)
    assert target.read_bytes() == b"the old one"
    assert sorted(os.listdir(tmp_path)) == ["checkpoint1.pt", "checkpoint_last.pt"]


def test_a_copy_is_the_file(tmp_path):
    source, target = saved(tmp_path / "checkpoint1.pt"), tmp_path / "checkpoint_last.pt"
    assert checkpoint_utils.PathManager.copy(str(source), str(target), overwrite=True)
    assert target.read_bytes() == source.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["checkpoint1.pt", "checkpoint_last.pt"]


def test_a_copy_keeps_a_symbolic_link(tmp_path):
    """Some keep checkpoint_last.pt on another disk: what the link stands for is replaced."""
    source, elsewhere = saved(tmp_path / "checkpoint1.pt"), tmp_path / "disk"
    elsewhere.mkdir()
    target, link = elsewhere / "last.pt", tmp_path / "checkpoint_last.pt"
    target.write_bytes(b"the old one")
    link.symlink_to(target)
    assert checkpoint_utils.PathManager.copy(str(source), str(link), overwrite=True)
    assert link.is_symlink() and target.read_bytes() == source.read_bytes()
    assert os.listdir(elsewhere) == ["last.pt"]


KILLED = """
import os, signal, sys
import fairseq_entmax
from fairseq import checkpoint_utils
import shutil

def torn(src, dst, *args, **kwargs):
    with open(dst, "wb") as file:
        file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

shutil.copyfile = shutil.copy = torn
checkpoint_utils.PathManager.copy(*sys.argv[1:], overwrite=True)
"""


def test_a_kill_leaves_the_old_file_and_the_next_copy_cleans_up(tmp_path):
    source, target = saved(tmp_path / "checkpoint1.pt"), saved(tmp_path / "checkpoint_last.pt")
    old = target.read_bytes()
    done = subprocess.run([sys.executable, "-c", KILLED, str(source), str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == old
    assert checkpoint_utils.PathManager.copy(str(source), str(target), overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint1.pt", "checkpoint_last.pt"]


def test_storage_without_renaming_copies_in_its_own_way(monkeypatch):
    manager, asked = checkpoint_utils.PathManager, []
    monkeypatch.setattr(manager, "supports_rename", staticmethod(lambda path: False))
    monkeypatch.setattr("shutil.copyfile", lambda *args, **kwargs: asked.append(args) or True)
    assert manager.copy("a", "store://b", overwrite=True)
    assert asked == [("a", "store://b")]


@pytest.mark.parametrize("kept", [0, 30, 3000])
def test_a_torn_checkpoint_names_the_newest_whole_one(kept, tmp_path):
    older, whole, torn = (tmp_path / f"{name}.pt" for name in ("checkpoint1", "best", "last"))
    saved(older), saved(whole), saved(torn)
    os.utime(older, (1, 1))
    torn.write_bytes(torn.read_bytes()[:kept])
    (tmp_path / "other.pt").write_bytes(whole.read_bytes()[:-200])  # newer, and torn too
    with pytest.raises(ValueError, match=r"cannot read|refused to load") as caught:
        checkpoint_utils.load_checkpoint_to_cpu(str(torn))
    message = str(caught.value)
    assert "weights_only" not in message and "\n" not in message
    assert f"copy it to {torn}, or give --restore-file {whole}" in message
