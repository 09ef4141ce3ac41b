"""The code of README and docs runs, the commands parse, the names exist."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
import torch
from fairseq import options
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.models import ARCH_MODEL_REGISTRY

import fairseq_entmax

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN_MODELS = (ROOT / "docs" / "own-models.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README + OWN_MODELS, re.S)
CONSOLE = "\n".join(re.findall(r"```console\n(.*?)```", README, re.S))


def console_commands(name):
    joined = CONSOLE.replace("\\\n", " ")
    lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
    return [shlex.split(line) for line in lines if line.startswith(name + " ")]


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_links_of_the_package_page_are_whole_and_lead_to_files(monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    runpy.run_path(str(ROOT / "setup.py"))
    links = re.findall(r"\]\(([^)]+)\)", given["long_description"])
    ours = [link for link in links if link.startswith(given["url"])]
    assert len(ours) > 5 and all(link.startswith("https://") for link in links)
    for link in ours:
        path = re.fullmatch(re.escape(given["url"]) + r"/(?:raw|blob)/main/(.*)", link)[1]
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.splitlines()[0])
def test_python_block_runs(code):
    # in a process of its own: the blocks register models
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_printed_probabilities_are_true():
    namespace = {}
    exec(PYTHON[0], namespace)
    printed = re.search(r"# \[\[(.*?)\]\]", PYTHON[0]).group(1)
    expected = torch.tensor([[float(x) for x in printed.split(",")]])
    torch.testing.assert_close(namespace["probs"].detach(), expected, atol=5e-5, rtol=0)
    assert namespace["scores"].grad[0, 2] == 0


OWN = {
    "registered": (
        "from argparse import Namespace\nfrom fairseq.models import build_model\n"
        "from tests.decoding.table_model import TableTask, dictionary\n"
        "args = Namespace(arch='my_fconv_small_entmax')\n"
        "args.max_source_positions = args.max_target_positions = 50\n"
        "model = build_model(args, TableTask(dictionary('abcdefgh'))).eval()\n"
    ),
}


@pytest.mark.parametrize("number", [1], ids=OWN)
def test_own_model_decodes_sparsely(number):
    """The examples of docs/own-models.md, built and asked for probabilities."""
    code = (
        "import torch\n"
        + PYTHON[number]
        + list(OWN.values())[number - 1]
        + (
            "tokens = torch.tensor([[4, 5, 2]])\n"
            "scores, extra = model(tokens, torch.tensor([3]), tokens)\n"
            "probs = model.get_normalized_probs((20 * scores, extra), log_probs=False)\n"
            "assert torch.allclose(probs.sum(-1), torch.ones(1, 3))\n"
            "assert (probs == 0).any()\n"
        )
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "parser"),
    [
        ("fairseq-train", options.get_training_parser),
        ("fairseq-generate", options.get_generation_parser),
    ],
)
def test_commands_parse(name, parser, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = console_commands(name)
    assert commands
    for _, *arguments in commands:
        options.parse_args_and_arch(parser(), arguments)  # exits on an unknown flag or name


def test_every_arch_is_named_and_registered():
    ours = {
        name
        for name, model in ARCH_MODEL_REGISTRY.items()
        if model.__module__.startswith("fairseq_entmax.")
    }
    table = re.search(r"\| archs \| (.*) \|", README).group(1)
    named = set(re.findall(r"`(\w+)`", table)) - {"_entmax"}
    assert len(named) > 5 and named <= ours
    criterions = re.search(r"\| criterions \| (.*) \|", README).group(1)
    assert set(re.findall(r"`(\w+)`", criterions)) == {
        name for name in CRITERION_REGISTRY if "entmax" in name
    }


def test_version_is_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {fairseq_entmax.__version__} - " in changelog
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {fairseq_entmax.__version__}" in citation
