"""docs/adoption.md: its commands run in their order, and the logs are as it says."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from . import commands, corpus

PAGE = (Path(__file__).parents[2] / "docs" / "adoption.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n\$ (.*?)```", PAGE, re.S)
COMMANDS = [shlex.split(block.replace("\\\n", " ")) for block in BLOCKS]
NAMES = ["stock", "sparse", "decode", "tuned"]


def adapted(command, data, folder, updates):
    """The command of the page for a small model, nouns instead of sentences, and this folder."""
    names = {
        "data-bin/iwslt14.tokenized.de-en": data,
        "transformer_iwslt_de_en": "transformer_tiny",
        "transformer_entmax_iwslt_de_en": "transformer_entmax_tiny",
    }
    words = [names.get(word, word) for word in command]
    at = [i for i, word in enumerate(words) if re.match(r"(stock|sparse|tuned)(/|$)", str(word))]
    for i in at:
        words[i] = folder / words[i]
    words += ["--cpu"]
    if command[0] == "fairseq-train":
        words += ["--max-tokens", 300, "--lr", 0.005, "--dropout", 0, "--warmup-updates", 20]
        words += ["--max-update", updates, "--seed", 1, "--no-epoch-checkpoints"]
        words += ["--validate-interval", 1000, "--log-format", "json", "--log-interval", 10]
    return words


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adoption")
    updates = {"stock": 180, "sparse": 180, "decode": 0, "tuned": 50}
    jobs = {
        name: adapted(command, data, folder, updates[name])
        for name, command in zip(NAMES, COMMANDS)
    }
    jobs["decode tuned"] = [
        *("fairseq-generate", data, *commands.USER_DIR, "--task", "translation", "--cpu"),
        *("--path", folder / "tuned" / "checkpoint_last.pt", "--beam", 5, "--nbest", 5),
    ]
    done = commands.attempt_all(jobs, folder / "logs")
    for name, (code, output) in done.items():
        assert code == 0, f"{name}: {output[-3000:]}"
    return folder, {name: output for name, (_, output) in done.items()}


def correct(output):
    plurals = [plural for _, plural in corpus.noun_pairs()["test"]]
    answers = commands.parse_generation(output)
    return sum(answers[i][0].text.replace("@@ ", "") == plurals[i] for i in answers)


def test_the_page_has_these_commands():
    assert [command[0] for command in COMMANDS] == [
        *("fairseq-train", "fairseq-train", "fairseq-generate", "fairseq-train")
    ]


def test_three_words_change():
    stock, sparse = ([w for w in c if w not in ("stock", "sparse")] for c in COMMANDS[:2])
    changed = {"--user-dir", "fairseq_entmax", "transformer_entmax_iwslt_de_en", "entmax_loss"}
    assert set(sparse) - set(stock) == changed | {"0.01"}
    assert set(stock) - set(sparse) == {
        *("transformer_iwslt_de_en", "label_smoothed_cross_entropy", "0.1")
    }


def test_logs_change_as_the_table_says(finished):
    _, outputs = finished
    logged = {name: commands.json_logs(outputs[name], "train")[-1] for name in ("stock", "sparse")}
    only_stock = {"train_nll_loss", "train_ppl"}
    only_sparse = {"train_support", "train_gold_in_support", "train_token_accuracy"}
    assert set(logged["stock"]) - set(logged["sparse"]) == only_stock
    assert set(logged["sparse"]) - set(logged["stock"]) == only_sparse
    for name in only_stock | only_sparse:
        assert f"`{name[len('train_') :]}`" in PAGE
    assert logged["sparse"]["train_loss"] < logged["stock"]["train_loss"]
    first = commands.json_logs(outputs["sparse"], "train_inner")[0]
    assert logged["sparse"]["train_support"] < first["support"] / 2


def test_decoding_reads_alpha_from_the_checkpoint(finished):
    assert correct(finished[1]["decode"]) > corpus.TEST // 2


def test_a_stock_checkpoint_becomes_sparse(finished):
    folder, outputs = finished
    tuned = torch.load(str(folder / "tuned" / "checkpoint_last.pt"), map_location="cpu")
    assert tuned["cfg"]["model"].output_alpha == 1.5
    stock = torch.load(str(folder / "stock" / "checkpoint_last.pt"), map_location="cpu")
    assert tuned["model"].keys() == stock["model"].keys()
    logs = commands.json_logs(outputs["tuned"], "train_inner")
    # it begins with what the stock model knew, and 50 updates are not enough to learn it anew
    assert logs[0]["token_accuracy"] > 0.7
    assert logs[-1]["support"] < 3
    assert correct(outputs["decode tuned"]) > corpus.TEST // 2
