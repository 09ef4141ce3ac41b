"""The options of run.py, checked, and the flags of fairseq-train that they mean."""

import os
from typing import Dict, List, Tuple

import runner
from runner import fail

USAGE = """
usage: run.sh --data FILES or DIR --task TASK --out DIR [options] [-- flags of fairseq-train]
  --data PATHS         files LANGUAGE_train.tsv, LANGUAGE_dev.tsv, ..., or a folder with them; one
                       file of any name is a language, some of whose lines are held out as dev
  --task TASK          g2p, segmentation, inflection, or a FILE.yaml that tells the columns
  --out DIR            where everything is written
  --languages "A B"    languages of the one model, or all (default)
  --output-alpha A     1 is softmax, 1.5 entmax (default), 2 sparsemax
  --attention-alpha A  likewise (default 1.5)
  --arch ARCH          lstm (default), two_headed or transformer
  --ensemble N         models, with seeds S, S + 1, ... (default 1)
  --subwords V         pieces of sentencepiece on both sides (default 0: symbols)
  --unit UNIT          code-points, clusters or decomposed: what a character is (default: decomposed
                       for g2p, so that a Hangul syllable is its letters; else code-points)
  --eval-split S       dev (default) or test
  --metric M           accuracy, f1, levenshtein, ...: by which the checkpoint is chosen (default
                       accuracy; f1 for segmentation)
  --setting S          of inflection files such as german-train-medium (default medium)
  --columns ORDER      of inflection files: lemma,form,features or lemma,features,form
  --seed S             default 1
  --max-update N       updates of each model (default: 1500 and one for every five pairs)
  --valid-words N      dev words that validation answers while training (default 3000)
  --beam N             default 5
  --abstain P          an answer is given if it is the only possible one, or the proven best with
                       at least this probability (default 0.9)
  --quick              a smaller model, at most 1500 updates
"""
DEFAULTS = {
    **{"data": "", "task": "", "out": "", "languages": "all", "output-alpha": "1.5"},
    **{"attention-alpha": "1.5", "arch": "lstm", "ensemble": "1", "subwords": "0", "unit": ""},
    **{"eval-split": "dev", "metric": "", "setting": "medium", "columns": "", "seed": "1"},
    **{"max-update": "", "valid-words": "3000", "beam": "5", "abstain": "0.9", "quick": "no"},
}
# what makes the models; the other options only use them
SETTINGS = (
    *("task", "languages", "output-alpha", "attention-alpha", "arch", "subwords", "unit"),
    *("metric", "setting", "columns", "seed", "max-update", "valid-words", "quick"),
)
ARCHS = {
    "lstm": "lstm_entmax",
    "two_headed": "two_headed_lstm_entmax",
    "transformer": "transformer_entmax",
}
METRICS = ("accuracy", "wer", "per", "cer", "levenshtein", "precision", "recall", "f1")
LESS_IS_BETTER = ("wer", "per", "cer", "levenshtein")
NUMBERS = ("ensemble", "subwords", "seed", "beam", "max-update", "valid-words")

Options = Dict[str, str]


def read(arguments: List[str]) -> Tuple[Options, List[str]]:
    """All options, each of them checked, and the flags of fairseq-train."""
    given, flags = runner.read_options(
        _data_joined(arguments), DEFAULTS, USAGE, "unknown option: {}"
    )
    for name in ("data", "task", "out"):
        if not given[name]:
            fail(f"--{name} is missing")
    _check_numbers(given)
    for name, allowed in (
        ("arch", tuple(ARCHS)),
        ("eval-split", ("dev", "test")),
        ("columns", ("", *runner.ORDERS)),
        ("unit", ("", "code-points", "clusters", "decomposed")),
        ("metric", ("", *METRICS)),
    ):
        if given[name] not in allowed:
            fail(f"--{name} must be one of {', '.join(filter(None, allowed))}, got {given[name]}")
    segmentation = given["task"] == "segmentation"
    given["metric"] = given["metric"] or ("f1" if segmentation else "accuracy")
    given["out"] = os.path.abspath(given["out"])
    return given, flags


def _data_joined(arguments: List[str]) -> List[str]:
    """``--data A B C`` as one value."""
    if "--data" not in arguments:
        return arguments
    begin = arguments.index("--data") + 1
    end = begin
    while end < len(arguments) and not arguments[end].startswith("--"):
        end += 1
    if end == begin:
        return arguments
    paths = os.pathsep.join(os.path.abspath(path) for path in arguments[begin:end])
    return [*arguments[:begin], paths, *arguments[end:]]


def _check_numbers(given: Options) -> None:
    """Numbers are in their range and lose leading zeros, so that 08 and 8 are one setting."""
    for name in NUMBERS:
        if given[name]:
            if not runner.is_whole(given[name]):
                fail(f"--{name} is a whole number, got {given[name]}")
            given[name] = str(int(given[name]))
    for name in ("ensemble", "beam", "max-update", "valid-words"):
        if given[name] == "0":
            fail(f"--{name} is at least 1")
    for name in ("output-alpha", "attention-alpha"):
        if not runner.is_alpha(given[name]):
            fail(f"--{name} is a number >= 1 (1 is softmax), got {given[name]}")
    try:
        if not 0 <= float(given["abstain"]) <= 1:
            raise ValueError
    except ValueError:
        fail(f"--abstain is a probability, got {given['abstain']}")


def experiment(given: Options, flags: List[str]) -> str:
    """The command that a folder belongs to."""
    values = {**given, "languages": f"'{given['languages']}'"}
    shown = [name for name in SETTINGS if given[name] != DEFAULTS[name] or name == "task"]
    line = "run.sh" + "".join(
        " --quick" if name == "quick" else f" --{name} {values[name]}" for name in shown
    )
    return line + (f" -- {' '.join(flags)}" if flags else "")


def model_flags(given: Options, joined: bool, updates: int) -> List[str]:
    """Architecture and schedule."""
    if given["arch"] == "transformer":
        return _transformer_flags(given["quick"] == "yes", joined, updates)
    embedding, encoder, decoder = (64, 128, 256) if given["quick"] == "yes" else (128, 200, 400)
    flags = [
        *("--encoder-bidirectional", _shared(joined)),
        *("--encoder-embed-dim", embedding, "--decoder-embed-dim", embedding),
        *("--decoder-out-embed-dim", embedding, "--encoder-hidden-size", encoder),
        *("--decoder-hidden-size", decoder, "--dropout", "0.1"),
        *("--batch-size", "64", "--lr", "0.003", "--warmup-updates", "200"),
    ]
    return list(map(str, flags))


def _transformer_flags(quick: bool, joined: bool, updates: int) -> List[str]:
    width, layers = (128, 2) if quick else (256, 4)
    flags = []
    for side in ("encoder", "decoder"):
        flags += [f"--{side}-embed-dim", width, f"--{side}-ffn-embed-dim", 4 * width]
        flags += [f"--{side}-layers", layers, f"--{side}-attention-heads", 4]
        flags += [f"--{side}-normalize-before"]
    flags += [_shared(joined), "--dropout", "0.2", "--batch-size", "128", "--lr", "0.001"]
    return list(map(str, [*flags, "--warmup-updates", max(1, updates // 10)]))


def _shared(joined: bool) -> str:
    return "--share-all-embeddings" if joined else "--share-decoder-input-output-embed"
