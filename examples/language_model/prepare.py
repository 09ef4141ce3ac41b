"""A plain text as three files of symbols: train, valid and test, a passage in each line.

    python examples/language_model/prepare.py TEXT FOLDER characters

Passages are what blank lines part (in a play, the speeches). Symbols are the characters, a blank
being ``▁``, or words and punctuation; a line break is the symbol ``⏎`` in both. The first 90% of
the passages are for training, 5% for validation, the last 5% for the test.
"""

import re
import sys
from pathlib import Path
from typing import Dict, List

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from runner import write_lines

BLANK, BREAK = "▁", "⏎"
LEVELS = ("characters", "words")
SPLITS = ("train", "valid", "test")
_SHARES = (0.9, 0.95, 1.0)
_WORD = re.compile(rf"{BREAK}|[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")


def symbols(passage: str, level: str) -> List[str]:
    """The symbols of a passage.

    >>> symbols("Hear me\\nspeak.", "words")
    ['Hear', 'me', '⏎', 'speak', '.']
    >>> symbols("Hear me", "characters")
    ['H', 'e', 'a', 'r', '▁', 'm', 'e']
    """
    joined = BREAK.join(" ".join(line.split()) for line in passage.split("\n"))
    return list(joined.replace(" ", BLANK)) if level == "characters" else _WORD.findall(joined)


def split(text: str, level: str) -> Dict[str, List[str]]:
    """The lines of each file.

    Raises:
        ValueError: too few passages for three files.
    """
    passages = [symbols(passage.strip(), level) for passage in re.split(r"\n\s*\n", text)]
    lines = [" ".join(passage) for passage in passages if passage]
    ends = [0, *(int(share * len(lines)) for share in _SHARES)]
    parts = {name: lines[i:j] for name, i, j in zip(SPLITS, ends, ends[1:])}
    if not all(parts.values()):
        raise ValueError(f"a text of at least 20 passages, parted by blank lines; got {len(lines)}")
    return parts


def main(text: str, folder: str, level: str) -> None:
    """Writes the files and says how large they are."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, lines in split(Path(text).read_text(encoding="utf-8"), level).items():
        write_lines(Path(folder) / name, lines)
        print(f"{name}: {len(lines)} passages, {sum(len(x.split()) + 1 for x in lines)} {level}")


if __name__ == "__main__":
    main(*sys.argv[1:])
