"""Parallel text, checked and cut into sentencepiece pieces, as fairseq-preprocess reads it.

    python prepare.py train --data DIR --src de --tgt en --out OUT [--vocab 8000]
    python prepare.py test --prefix DIR/test_2016_flickr --src de --tgt en --model OUT/spm.model \\
        --out OUT/test_2016_flickr

A line ends at the line feed and nowhere else: tabs and Unicode's other separators are blanks
inside a line. Files that do not belong together stop the preparation, with file and line.
"""

import argparse
import hashlib
import io
import itertools
import json
import sys
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Sequence

import sentencepiece

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runner import whole, write_json, write_lines

VALID_NAMES = ("valid", "val", "dev")
LONGEST_TEST = 1000  # pieces; fairseq's models have 1024 positions and skip what is longer
SYMBOLS = ("<s>", "</s>", "<pad>")  # of fairseq; in a text they are words like others
LARGE_ALPHABET = 1000  # above it (Chinese, Japanese) the rarest characters become <unk>
SAMPLED_LINES = 2_000_000  # enough to learn pieces from


class Pairs(NamedTuple):
    """Line N of the source and of the target are translations of each other."""

    source: List[str]
    target: List[str]


def read_lines(path: Path) -> List[str]:
    """The lines of a text file, runs of any white space made one blank.

    Raises:
        SystemExit: no such file, no line, a line that is empty or not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    if content.startswith(b"\xef\xbb\xbf"):  # the byte order mark of some editors
        content = content[3:]
    raw = content.split(b"\n")
    if not raw[-1]:
        raw.pop()
    if not raw:
        raise SystemExit(f"{path}: the file is empty")
    return [_line(line, f"{path}, line {number}") for number, line in enumerate(raw, 1)]


def _line(raw: bytes, place: str) -> str:
    try:
        line = " ".join(raw.decode("utf-8").split())
    except UnicodeDecodeError as error:
        raise SystemExit(f"{place}: not UTF-8 ({error.reason} at byte {error.start + 1})") from None
    if not line:
        raise SystemExit(f"{place}: the line is empty; remove it on both sides")
    return line


def read_pairs(prefix: Path, source: str, target: str) -> Pairs:
    """Both sides of a corpus.

    Raises:
        SystemExit: besides what ``read_lines`` refuses, two sides of different length.
    """
    paths = [prefix.with_name(f"{prefix.name}.{language}") for language in (source, target)]
    for path in paths:
        if not path.is_file():
            raise SystemExit(f"{path}: no such file (needed beside the other language)")
    pairs = Pairs(*(read_lines(path) for path in paths))
    lengths = [len(side) for side in pairs]
    if lengths[0] != lengths[1]:
        longer = paths[lengths.index(max(lengths))]
        raise SystemExit(
            f"{longer}, line {min(lengths) + 1}: no line to match on the other side "
            f"({paths[0].name} has {lengths[0]} lines, {paths[1].name} {lengths[1]})"
        )
    return pairs


def validation_prefix(folder: Path, source: str) -> Path:
    for name in VALID_NAMES:
        if (folder / f"{name}.{source}").exists():
            return folder / name
    names = ", ".join(f"{name}.{source}" for name in VALID_NAMES)
    raise SystemExit(f"{folder}: no validation set (looked for {names})")


def learn_pieces(lines: Sequence[str], vocab: int, model: Path) -> None:
    """A joint BPE model; fewer pieces than asked for where the text has no more to give."""
    alphabet = len({character for line in lines for character in line})
    learned = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=learned,
            model_type="bpe",
            vocab_size=vocab,
            hard_vocab_limit=False,
            character_coverage=1.0 if alphabet < LARGE_ALPHABET else 0.9995,
            input_sentence_size=SAMPLED_LINES,
            shuffle_input_sentence=True,
            pad_id=3,  # so that the text cannot hold fairseq's padding symbol
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise SystemExit(
            f"--vocab {vocab}: no pieces for a text with {alphabet} different characters: {error}"
        ) from None
    with whole(model) as part:
        part.write_bytes(learned.getvalue())


def write_pieces(pairs: Pairs, args: argparse.Namespace, name: str) -> None:
    """Both sides in pieces. Long pairs are left out of training and cut in a test, and said."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(args.model))
    sides = [
        [["<unk>" if piece in SYMBOLS else piece for piece in line] for line in encoded]
        for encoded in (pieces.encode(side, out_type=str) for side in pairs)
    ]
    for number, pair in enumerate(zip(*sides), 1):
        if not all(pair):
            raise SystemExit(f"{name}, line {number}: nothing is left of it after normalisation")
    kept = list(zip(*sides))
    if args.command == "train":
        kept = [pair for pair in kept if max(map(len, pair)) <= args.max_length]
        if not kept:
            raise SystemExit(f"{name}: every pair has more than {args.max_length} pieces")
    else:
        for number, pair in enumerate(kept, 1):
            if max(map(len, pair)) > LONGEST_TEST:
                print(f"{name}, line {number}: cut after {LONGEST_TEST} pieces")
        kept = [tuple(side[:LONGEST_TEST] for side in pair) for pair in kept]
    if len(kept) < len(pairs.source):
        left_out = len(pairs.source) - len(kept)
        print(f"{name}: {left_out} pairs of more than {args.max_length} pieces left out")
    for language, side in zip((args.src, args.tgt), zip(*kept)):
        write_lines(args.out / f"{name}.{language}", map(" ".join, side))
    tokens = sum(len(target) + 1 for _, target in kept)
    print(f"{name}: {len(kept)} pairs, {tokens} target pieces")


def digest(corpora: Iterable[Pairs]) -> str:
    """One name for the content of all corpora, in their order."""
    content = hashlib.sha256()
    for pairs in corpora:
        for line in itertools.chain(pairs.source, pairs.target):
            content.update(line.encode("utf-8") + b"\n")
    return content.hexdigest()[:16]


def check_settings(path: Path, settings: Dict[str, str]) -> None:
    """Writes down what a run was made with; a run of other settings is not mixed with it.

    Raises:
        SystemExit: the file holds other settings.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_json(path, settings)
        return
    for name in sorted(set(found) | set(settings)):
        if found.get(name) != settings.get(name):
            raise SystemExit(
                f"{path.parent} holds a run with {name}={found.get(name)}, now {name} is "
                f"{settings.get(name)}: choose another folder, or remove this one"
            )


def prepare_training(args: argparse.Namespace) -> None:
    if not args.data.is_dir():
        raise SystemExit(f"{args.data}: no such folder")
    prefixes = {"train": args.data / "train", "valid": validation_prefix(args.data, args.src)}
    corpora = {name: read_pairs(prefix, args.src, args.tgt) for name, prefix in prefixes.items()}
    settings = {"content of the data": digest(corpora.values()), "vocab": str(args.vocab)}
    settings.update(setting.split("=", 1) for setting in args.setting)
    args.out.mkdir(parents=True, exist_ok=True)
    check_settings(args.out / "settings.json", settings)
    args.model = args.out / "spm.model"
    if not args.model.exists():
        train = corpora["train"]
        learn_pieces(train.source + train.target, args.vocab, args.model)
    write_lines(args.out / f"raw.{args.tgt}", corpora["train"].target)  # for word counts
    for name, pairs in corpora.items():
        write_pieces(pairs, args, name)


def prepare_test(args: argparse.Namespace) -> None:
    pairs = read_pairs(args.prefix, args.src, args.tgt)
    args.out.mkdir(parents=True, exist_ok=True)
    write_lines(args.out / "reference", pairs.target)
    write_pieces(pairs, args, "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", metavar="train|test")
    commands.required = True
    train = commands.add_parser("train", help="learn the pieces, cut train and valid")
    train.add_argument("--data", type=Path, required=True, help="holds train.* and valid.*")
    train.add_argument("--vocab", type=int, default=4000, help="pieces of both languages")
    train.add_argument("--max-length", type=int, default=250, help="in pieces, of a training pair")
    train.add_argument(
        "--setting",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="refuse a folder that holds a run with another value",
    )
    test = commands.add_parser("test", help="cut a test set with the model of the training")
    test.add_argument("--prefix", type=Path, required=True, help="PREFIX.src and PREFIX.tgt")
    test.add_argument("--model", type=Path, required=True, help="spm.model of the training")
    for command in (train, test):
        command.add_argument("--src", required=True, help="source language, the file ending")
        command.add_argument("--tgt", required=True, help="target language, the file ending")
        command.add_argument("--out", type=Path, required=True, help="folder to write into")
    args = parser.parse_args()
    prepare_training(args) if args.command == "train" else prepare_test(args)


if __name__ == "__main__":
    main()
