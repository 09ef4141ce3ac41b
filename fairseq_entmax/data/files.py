"""Files written whole: a file that exists is complete, whatever stops the program that writes it.

Imports nothing but Python's own library, so that small scripts can load this file alone.
"""

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterable, Iterator


def unfinished(path: Path) -> Path:
    """Where the content of a file grows until the file has its name."""
    return path.with_name(path.name + ".part")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path, which takes the name ``path`` if the block ends well and goes if not.

    Raises:
        OSError: the disk is full, or there is no such folder; what was at ``path`` is still there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with whole(folder / "numbers") as part:
        ...     _ = part.write_text("1 2 3")
        >>> [path.name for path in folder.iterdir()]
        ['numbers']
    """
    part = unfinished(path)
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        if part.exists():
            part.unlink()
        raise


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """UTF-8, every line ended by a line feed."""
    with whole(path) as part, open(part, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be opened.
        ValueError: it holds no JSON, or lists in lists in lists.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deep") from None


def read_checkpoint(path: Path) -> Any:
    """What fairseq has saved, on the CPU; nothing in it is run, and checksums are compared.

    Raises:
        ValueError: the file is none, or holds more than that.
    """
    from fairseq import checkpoint_utils

    return checkpoint_utils.torch.load(str(path), map_location="cpu")  # as compat has mended it


def write_json(path: Path, content: Any) -> None:
    """JSON for people: indented, letters of every script as themselves."""
    write_lines(path, [json.dumps(content, indent=1, ensure_ascii=False)])
