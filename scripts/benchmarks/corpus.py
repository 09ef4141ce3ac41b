"""The corpus of the recipe benchmarks: Multi30k German to English if it is given, else made up."""

import os
import random
import re
import subprocess
import tarfile
from itertools import accumulate
from pathlib import Path
from typing import List

from benchmarks.processes import SCRIPTS

# an archive or a folder with train.de, train.en, val.de, ...; without one words are made up
MULTI30K = Path(os.environ["MULTI30K"]) if os.environ.get("MULTI30K") else None
LINES = {"train": 29000, "val": 1014, "test_2016_flickr": 300}
TOKEN = re.compile(r"\w+|[^\w\s]")


def prepare(folder: Path, vocabulary: int) -> Path:
    """Writes the corpus, word by word, and its fairseq-preprocess'd form, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in LINES:
        for side in ("de", "en"):
            lines = multi30k(split, side) if MULTI30K else made_up(split, side, vocabulary)
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


def multi30k(split: str, side: str) -> List[str]:
    assert MULTI30K is not None
    name = f"{split}.{side}"
    if not MULTI30K.exists():
        raise SystemExit(f"MULTI30K={MULTI30K}: there is no such archive or folder")
    if MULTI30K.is_dir():
        text = (MULTI30K / name).read_text(encoding="utf-8")
    else:
        with tarfile.open(MULTI30K) as archive:
            stored = archive.extractfile(f"multi30k/{name}")
            assert stored is not None
            text = stored.read().decode("utf-8")
    return [" ".join(TOKEN.findall(line)) for line in text.rstrip("\n").split("\n")]


def made_up(split: str, side: str, vocabulary: int) -> List[str]:
    """Captions' lengths, words by Zipf's law."""
    random_words = random.Random(f"{split}.{side}")
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
