"""The blocks of every page in docs/ and examples/: code runs or compiles, commands parse."""

import re
import shlex
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import pytest
from fairseq import options

from fairseq_entmax.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/*.md")])
RUNS = {"plain-torch.md"}  # tests/test_readme.py runs own-models.md; the others ask for a model
PARSERS = {
    "fairseq-train": options.get_training_parser,
    "fairseq-generate": options.get_generation_parser,
    "fairseq-eval-lm": options.get_eval_lm_parser,
    "fairseq-preprocess": options.get_preprocessing_parser,
}
COMMAND = re.compile(r"(?:\$|   ) *(?:[A-Z_]+=\S+ )*((?:fairseq-|examples/|python |make ).*)")
ENDS = ("|", "<", ">", "&", ";")
LEFT_OUT = "..."  # of a command: data, a model, what the reader has


def blocks(kind):
    return [
        pytest.param(page, block, id=f"{page.relative_to(ROOT).as_posix()}-{i}")
        for page in PAGES
        for i, block in enumerate(
            re.findall(rf"(?m)^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.S)
        )
    ]


def commands(block):
    """The words of each command, without what it is piped into or written to."""
    for line in block.replace("\\\n", " ").splitlines():
        match = COMMAND.match(line)
        if match:
            yield list(takewhile(lambda word: word not in ENDS, shlex.split(match[1], True)))


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_code_runs(page, code):
    compiled = compile(code, page.name, "exec")
    if page.name in RUNS:
        exec(compiled, {})


@pytest.mark.parametrize(("page", "block"), blocks("console"))
def test_commands_parse(page, block, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for program, *words in commands(block):
        if program in PARSERS:
            given = ["data" if word.startswith(LEFT_OUT) else word for word in words]
            given = [word.replace("$k", "0") for word in given]  # of a loop
            if program in ("fairseq-generate", "fairseq-eval-lm") and "--path" not in words:
                given += ["--path", "model.pt"]
            options.parse_args_and_arch(PARSERS[program](), given)
        elif program == "fairseq-entmax":
            name, *rest = words
            parser = getattr(import_module(COMMANDS[name][0]), "parser", None)
            if parser is not None and LEFT_OUT not in rest:
                parser().parse_args(rest)
        elif program.startswith("examples/"):
            assert (ROOT / program).is_file()
        elif program == "python" and not words[0].startswith("-"):
            assert (ROOT / words[0]).is_file()
        elif program == "make":
            assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_commands_are_found():
    block = "$ A=1 fairseq-train x \\\n    --arch y | tee z\n   fairseq-generate w > part$k &\nout"
    assert list(commands(block)) == [
        ["fairseq-train", "x", "--arch", "y"],
        ["fairseq-generate", "w"],
    ]
