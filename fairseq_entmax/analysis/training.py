"""What a training has logged: fairseq's log files (JSON or plain) and TensorBoard's events."""

import json
import math
import re
import struct
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

Curve = List[Tuple[int, float]]  # (updates, value)
Curves = Dict[str, Dict[str, Curve]]  # train, train_inner or valid -> metric -> curve

# "| INFO | valid | ...", "INFO:valid:..." and, of hydra, "[valid][INFO] - ..."
_ENTRY = re.compile(r"[|:[] ?(train|train_inner|valid)(?: \| |:|\]\[INFO\] - )(.*)$")
_ALPHA = "alpha."  # what the names of learned alphas begin with
_EVENTS = "events.out.tfevents."


def read_training(paths: List[Path]) -> Curves:
    """Curves of log files, and of the folders of ``--tensorboard-logdir``.

    Raises:
        ValueError: a path that is not there, or holds nothing that fairseq has logged.
    """
    curves: Curves = {}
    for path in paths:
        if not path.exists():
            raise ValueError(f"there is no log {path}")
        entries = _events(path) if path.is_dir() else _lines(path)
        empty = True
        for group, metric, update, value in entries:
            curve = curves.setdefault(group, {}).setdefault(metric, [])
            curve.append((update, value))
            empty = False
        if empty:
            raise ValueError(f"{path} holds no numbers of a fairseq training")
    # a training that was resumed logs some updates again: the later one holds
    return {
        group: {metric: sorted(dict(curve).items()) for metric, curve in metrics.items()}
        for group, metrics in curves.items()
    }


def learned_alphas_of(curves: Curves) -> Dict[str, Curve]:
    """The curve of every learned alpha at validation, by layer and head."""
    logged = curves.get("valid", {})
    return {name[len(_ALPHA) :]: curve for name, curve in logged.items() if name.startswith(_ALPHA)}


def _lines(path: Path) -> Iterator[Tuple[str, str, int, float]]:
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            found = _ENTRY.search(line.rstrip("\n"))
            if found is None:
                continue
            group, text = found.groups()
            values = _json(text) if text.startswith("{") else _plain(text)
            prefix = group + "_"
            named = {k[len(prefix) :] if k.startswith(prefix) else k: v for k, v in values.items()}
            if math.isfinite(named.get("num_updates", math.nan)):
                update = int(named.pop("num_updates"))
                yield from ((group, metric, update, value) for metric, value in named.items())


def _json(text: str) -> Dict[str, float]:
    try:
        return _numbers(json.loads(text).items())
    except ValueError:  # cut off
        return {}


def _plain(text: str) -> Dict[str, float]:
    """``loss 4.3 | support 2.1``, or ``50 / 375 loss=4.3, support=2.1``."""
    return _numbers(re.findall(r"([A-Za-z][\w.]*)[ =]([^\s,|]+)", text))


def _numbers(pairs: Any) -> Dict[str, float]:
    found = {}
    for name, value in pairs:
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            continue
    return found


def _events(folder: Path) -> Iterator[Tuple[str, str, int, float]]:
    try:
        from tensorboardX.proto.event_pb2 import Event
    except ImportError:
        raise ValueError(
            "events of TensorBoard are read with tensorboardX: pip install tensorboardX, or name "
            "a log file"
        ) from None
    for path in sorted(folder.rglob(_EVENTS + "*")):
        for record in _records(path.read_bytes()):
            event = Event.FromString(record)
            for value in event.summary.value:
                yield path.parent.name, value.tag, event.step, value.simple_value


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file: length (8 bytes), its checksum (4), record, checksum (4); one
    that a killed training has cut off is left out.
    """
    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        record = content[start + 12 : start + 12 + length]
        if len(record) == length:
            yield record
        start += 12 + length + 4
