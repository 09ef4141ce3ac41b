"""Checkpoints that are whole, whatever interrupts their writing."""

import contextlib
import glob
import os
import zipfile
import zlib
from typing import Any

from fairseq.file_io import PathManager

from .repairs import repair
from .wrapping import words_of

_FOLDER = 0x10  # an attribute; of such a record torch reads nothing, and takes what is in memory


@repair(lambda: not words_of(PathManager.copy) & {"rename", "replace"})
def copy_checkpoints_whole() -> None:
    """Copy a checkpoint to a temporary name, then rename it.

    Fault: checkpoint_last.pt is a copy written over the old one; SIGKILL or a full disk on the
    way leaves a torn file, from which no training resumes.
    Versions: every fairseq. Test: tests/compat/test_torn.py::test_*.
    """
    stock = PathManager.copy

    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        if not PathManager.supports_rename(dst_path):
            return stock(src_path, dst_path, overwrite=overwrite)
        if not overwrite and os.path.exists(dst_path):
            return stock(src_path, dst_path, overwrite=overwrite)
        target = os.path.realpath(dst_path)  # what a symbolic link stands for, as stock
        partial = target + ".tmp"
        try:
            copied = stock(src_path, partial, overwrite=True)
            if copied:
                PathManager.rename(partial, target)
            return copied
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(partial)
            raise

    PathManager.copy = staticmethod(copy)


def newest_whole_beside(path: str) -> str:
    """A sentence that names the newest undamaged checkpoint in the folder of ``path``, or ''."""
    others = glob.glob(os.path.join(glob.escape(os.path.dirname(path)), "*.pt"))
    others = [other for other in others if os.path.abspath(other) != os.path.abspath(path)]
    for other in sorted(others, key=os.path.getmtime, reverse=True):
        if is_whole(other):
            return (
                f" The newest whole checkpoint beside it is {other}: copy it to {path}, "
                f"or give --restore-file {other}."
            )
    return ""


def is_whole(path: str) -> bool:
    """Whether every record of a file that torch wrote is there and has its checksum."""
    try:
        check_records(path)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError):
        return False
    return True


def check_records(file: Any) -> None:
    """Read a file that torch wrote from end to end, without a look at what the records mean.

    Args:
        file: a path, or a binary file that can be read anywhere.

    Raises:
        BadZipFile: a record has another checksum than when it was written, or is compressed,
            which torch never does.
    """
    with zipfile.ZipFile(file) as archive:
        for record in archive.infolist():
            if record.compress_size != record.file_size:
                made = f"{record.file_size:,} bytes of {record.compress_size:,}"
                raise zipfile.BadZipFile(f"{record.filename} makes {made}")
            if record.external_attr & _FOLDER:
                raise zipfile.BadZipFile(f"{record.filename} is no record but a folder")
        damaged = archive.testzip()
        # torch.serialization.set_crc32_options(False) writes 0 for all
        if damaged is not None and archive.getinfo(damaged).CRC:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is another")
