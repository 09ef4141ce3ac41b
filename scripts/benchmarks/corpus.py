"""The corpus of the recipe benchmarks: Multi30k German to English if it is given, else made up."""

import random
import re
import subprocess
import tarfile
from itertools import accumulate
from pathlib import Path
from typing import List, Optional

from benchmarks.processes import SCRIPTS

LINES = {"train": 29000, "val": 1014, "test_2016_flickr": 300}
TOKEN = re.compile(r"\w+|[^\w\s]")


def prepare(folder: Path, vocabulary: int, source: Optional[Path]) -> Path:
    """Writes the corpus, word by word, and its fairseq-preprocess'd form, which is returned.

    Args:
        source: Multi30k; None for made-up words of the same shape.

    Raises:
        SystemExit: a file of Multi30k is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split in LINES:
        for side in ("de", "en"):
            name = f"{split}.{side}"
            lines = multi30k(source, name) if source else made_up(name, vocabulary)
            text = "\n".join(lines[: LINES[split]]) + "\n"
            (folder / f"{split}.{side}").write_text(text, encoding="utf-8")
    binary = folder / "bin"
    subprocess.run(
        [
            *(str(SCRIPTS / "fairseq-preprocess"), "-s", "de"),
            *("-t", "en", "--joined-dictionary", "--nwordssrc", str(vocabulary)),
            *("--trainpref", str(folder / "train"), "--validpref", str(folder / "val")),
            *("--testpref", str(folder / "test_2016_flickr"), "--destdir", str(binary)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return binary


def multi30k(source: Path, name: str) -> List[str]:
    """The words of train.de and so on, in a folder or in multi30k/ of a tar archive."""
    try:
        if source.is_dir():
            text = (source / name).read_text(encoding="utf-8")
        else:
            with tarfile.open(source) as archive:
                stored = archive.extractfile(f"multi30k/{name}")
                assert stored is not None
                text = stored.read().decode("utf-8")
    except (OSError, tarfile.TarError, KeyError) as error:
        raise SystemExit(f"--data {source}: no {name} of Multi30k to be read: {error}") from None
    return [" ".join(TOKEN.findall(line)) for line in text.rstrip("\n").split("\n")]


def made_up(name: str, vocabulary: int) -> List[str]:
    """Captions' lengths, words by Zipf's law."""
    split, side = name.split(".")
    random_words = random.Random(name)
    words = [f"{side}{i}" for i in range(vocabulary // 2)]
    weights = list(accumulate(1 / (i + 10) for i in range(len(words))))
    return [
        " ".join(
            random_words.choices(
                words, cum_weights=weights, k=max(4, round(random_words.gauss(13, 4)))
            )
        )
        for _ in range(LINES[split])
    ]
