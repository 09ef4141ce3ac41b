"""Binarised data and dictionaries: what is damaged is refused, where its structure tells."""

import os
import struct
from typing import Any

import numpy as np
from fairseq.data import Dictionary, indexed_dataset
from fairseq.data.indexed_dataset import MMapIndexedDataset, data_file_path, index_file_path

from .repairs import repair
from .wrapping import words_of, wrap

_HEAD = struct.Struct("<9sQBQ")  # magic, version, code of the type, number of sentences
_OF_EACH = 12  # bytes: a size of 4, a place of 8


def _problem(index: str, data: str) -> str:
    """What is wrong with an index, or with the data it belongs to; or ''."""
    with open(index, "rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return f"{index} ends after {len(head)} bytes"
        magic, version, code, n = _HEAD.unpack(head)
        types = indexed_dataset._code_to_dtype
        if magic != MMapIndexedDataset.Index._HDR_MAGIC or version != 1 or code not in types:
            return f"{index} is no index of fairseq-preprocess, or of another --dataset-impl"
        expected, found = _HEAD.size + _OF_EACH * n, os.path.getsize(index)
        if found != expected:
            return f"{index} has {found:,} bytes, and {n:,} sentences need {expected:,}"
        sizes, places = np.fromfile(file, np.int32, n), np.fromfile(file, np.int64, n)
    lengths = sizes.astype(np.int64) * np.dtype(types[code]).itemsize
    ends = np.cumsum(lengths)
    if (sizes < 0).any() or (places + lengths != ends).any():
        return f"{index} has sentences that do not follow each other"
    size = os.path.getsize(data)
    if n and size < ends[-1]:
        return f"{data} has {size:,} bytes, and its index speaks of {ends[-1]:,}"
    return ""


@repair(lambda: "_problem" not in words_of(MMapIndexedDataset.__init__))
def refuse_damaged_data() -> None:
    """Compare the index of binarised data with itself and with the length of the data.

    Fault: data cut off by a full disk fail in the middle of an epoch, and a flipped bit in the
    index gives other sentences without a word.
    Versions: every fairseq. Test: tests/faults/test_damaged_files.py::test_*.
    """

    def __init__(original: Any, self: Any, path: str) -> None:
        index, data = index_file_path(path), data_file_path(path)
        problem = _problem(index, data) if os.path.isfile(index) and os.path.isfile(data) else ""
        if problem:
            raise ValueError(f"damaged data: {problem}: run fairseq-preprocess again")
        original(self, path)

    wrap(MMapIndexedDataset, "__init__", __init__)


@repair(lambda: "_in_brief" not in words_of(Dictionary.add_from_file))
def say_which_dictionary_is_damaged() -> None:
    """Name the file of a dictionary that cannot be read, in one line.

    Fault: a line that is none ends in a traceback that names no file.
    Versions: every fairseq. Test: tests/faults/test_damaged_files.py::test_*.
    """

    def add_from_file(original: Any, self: Any, file: Any) -> None:
        try:
            original(self, file)
        except Exception as error:
            # of an open file the caller knows the name
            if isinstance(error, OSError) or not isinstance(file, str):
                raise
            raise ValueError(f"cannot read the dictionary {file}: {_in_brief(error)}") from error

    wrap(Dictionary, "add_from_file", add_from_file)


def _in_brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
