"""The paper's corpora, as they are distributed, into train, valid and test files for run.sh.

    python corpora.py {multi30k,iwslt,wmt16_roen,kftt} DOWNLOADED --src de --tgt en --out DATA

Nothing is fetched. Pairs with an empty side are left out, and counted.
"""

import argparse
import html
import re
import sys
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runner import write_lines

Line = Tuple[str, str]
Files = Dict[str, List[Line]]

SOURCES = {
    "multi30k": "https://github.com/multi30k/dataset, data/task1/raw: train, val, test_2016_flickr "
    "(gunzip them)",
    "iwslt": "https://wit3.fbk.eu, the archive of 2014 or 2017 of your pair (unpack it): "
    "train.tags.*, IWSLT1?.TED.*.xml",
    "wmt16_roen": "https://www.statmt.org/wmt16/translation-task.html and OPUS: "
    "europarl-v8.ro-en.*, SETIMES.en-ro.*, newsdev2016-roen-*.sgm and newstest2016-roen-*.sgm, "
    "in one folder",
    "kftt": "https://www.phontron.com/kftt, kftt-data-1.0.tar.gz (unpack it; give its data/orig)",
}
# the elements of IWSLT's training files, each on a line of its own
MARKUP = re.compile(
    r"\s*</?(url|keywords|talkid|title|description|speaker|reviewer|translator|transcript|doc)\b"
)
IWSLT_VALID_EVERY = 23  # fairseq's split: every 23rd training pair


def lines(path: Path) -> List[str]:
    """The lines of a file, which end at the line feed alone."""
    content = path.read_bytes().decode("utf-8")
    return content[: -1 if content.endswith("\n") else None].split("\n")


def spoken(path: Path) -> Iterator[str]:
    """IWSLT's train.tags: the lines that are no markup, in their order."""
    for line in lines(path):
        if not MARKUP.match(line):
            yield line.strip()


def segments(path: Path) -> Iterator[str]:
    """The <seg> elements of an XML or SGML test set."""
    for match in re.finditer(r"<seg\b[^>]*>(.*?)</seg>", path.read_text(encoding="utf-8"), re.S):
        yield html.unescape(match.group(1)).strip()


def aligned(read: Callable[[Path], Iterable[str]], source: Path, target: Path) -> List[Line]:
    """Line N of both files.

    Raises:
        SystemExit: a file is missing, or they have different numbers of lines.
    """
    sides = []
    for path in (source, target):
        try:
            sides.append(list(read(path)))
        except OSError as error:
            raise SystemExit(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise SystemExit(f"{path}: not UTF-8 at byte {error.start + 1}") from None
    if len(sides[0]) != len(sides[1]):
        raise SystemExit(
            f"{source.name} has {len(sides[0])} lines, {target.name} {len(sides[1])}: they are "
            "not aligned"
        )
    return list(zip(*sides))


def multi30k(folder: Path, src: str, tgt: str) -> Files:
    names = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
    return {
        split: aligned(lines, folder / f"{name}.{src}", folder / f"{name}.{tgt}")
        for split, name in names.items()
    }


def iwslt(folder: Path, src: str, tgt: str) -> Files:
    """fairseq's split: 1 / 23 of the training data is valid, all dev and test years are test."""
    pair = f"{src}-{tgt}"
    train = aligned(
        spoken, folder / f"train.tags.{pair}.{src}", folder / f"train.tags.{pair}.{tgt}"
    )
    test: List[Line] = []
    for path in sorted(folder.glob(f"IWSLT*.TED*.{pair}.{src}.xml")):
        other = path.with_name(path.name[: -len(f"{src}.xml")] + f"{tgt}.xml")
        test += aligned(segments, path, other)
    every = IWSLT_VALID_EVERY
    return {
        "train": [line for i, line in enumerate(train) if i % every],
        "valid": train[::every],
        "test": test,
    }


def wmt16_roen(folder: Path, src: str, tgt: str) -> Files:
    train: List[Line] = []
    for corpus in ("europarl-v8.ro-en", "SETIMES.en-ro"):
        train += aligned(lines, folder / f"{corpus}.{src}", folder / f"{corpus}.{tgt}")
    pair = src + tgt
    return {
        "train": train,
        **{
            split: aligned(
                segments,
                folder / f"{name}-{pair}-src.{src}.sgm",
                folder / f"{name}-{pair}-ref.{tgt}.sgm",
            )
            for split, name in (("valid", "newsdev2016"), ("test", "newstest2016"))
        },
    }


def kftt(folder: Path, src: str, tgt: str) -> Files:
    names = {"train": "kyoto-train", "valid": "kyoto-dev", "test": "kyoto-test"}
    return {
        split: aligned(lines, folder / f"{name}.{src}", folder / f"{name}.{tgt}")
        for split, name in names.items()
    }


READERS = {"multi30k": multi30k, "iwslt": iwslt, "wmt16_roen": wmt16_roen, "kftt": kftt}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", choices=sorted(READERS))
    parser.add_argument("downloaded", type=Path, help="folder with the files of the corpus")
    parser.add_argument("--src", required=True)
    parser.add_argument("--tgt", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    args = parser.parse_args()
    if not args.downloaded.is_dir():
        raise SystemExit(f"{args.downloaded}: no such folder; {SOURCES[args.corpus]}")
    try:
        files = READERS[args.corpus](args.downloaded, args.src, args.tgt)
    except SystemExit as error:
        raise SystemExit(f"{error}\n{args.corpus} is at {SOURCES[args.corpus]}") from None
    args.out.mkdir(parents=True, exist_ok=True)
    for split, pairs in files.items():
        kept = [pair for pair in pairs if all(side.strip() for side in pair)]
        if not kept:
            raise SystemExit(f"{args.corpus}: no {split} pairs in {args.downloaded}")
        for side, language in enumerate((args.src, args.tgt)):
            write_lines(args.out / f"{split}.{language}", (pair[side] for pair in kept))
        left_out = f", {len(pairs) - len(kept)} with an empty side left out"
        print(f"{split}: {len(kept)} pairs{left_out if len(kept) < len(pairs) else ''}")


if __name__ == "__main__":
    main()
