"""A checkpoint has its name when all of it is written."""

import os

import pytest
import torch
from fairseq import checkpoint_utils


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
    if kept != 30:
        assert f"--restore-file {whole}" in message
