"""Tasks that build their own generators and search with a sparse model while they train it."""

import random
import shutil

import pytest

from . import commands

TINY = [
    *("--encoder-layers", 1, "--decoder-layers", 1, "--max-update", 20, "--max-epoch", 10),
    *("--encoder-embed-dim", 16, "--decoder-embed-dim", 16, "--encoder-ffn-embed-dim", 16),
    *("--decoder-ffn-embed-dim", 16, "--encoder-attention-heads", 2),
    *("--decoder-attention-heads", 2, "--output-alpha", 2, "--lr", 0.02, "--dropout", 0),
]


def write(path, seed, n):
    draw = random.Random(seed)
    lines = [" ".join(draw.choices("abcdefgh", k=draw.randint(2, 6))) for _ in range(n)]
    path.write_text("".join(line + "\n" for line in lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Parallel sentences sg-pl, and sentences of each language alone, binarised for both tasks."""
    folder = tmp_path_factory.mktemp("back")
    for name, n in (("train", 64), ("valid", 8), ("mono", 32)):
        for language in ("sg", "pl"):
            write(folder / f"{name}.{language}", name, n)
    data = folder / "bin"
    commands.run(
        *("fairseq-preprocess", "-s", "sg", "-t", "pl", "--joined-dictionary"),
        *("--trainpref", folder / "train", "--validpref", folder / "valid", "--destdir", data),
    )
    shutil.copy(str(data / "dict.sg.txt"), str(data / "dict.txt"))
    for language in ("sg", "pl"):
        alone = folder / language
        commands.run(
            *("fairseq-preprocess", "-s", language, "-t", language, "--only-source"),
            *("--trainpref", folder / "mono", "--srcdict", data / "dict.txt", "--destdir", alone),
        )
        (data / language).mkdir()
        for end in ("bin", "idx"):
            (written,) = alone.glob(f"train.*.{end}")
            shutil.copy(str(written), str(data / language / f"train.{end}"))
            shutil.copy(str(written), str(data / f"train.{language}-None.{language}.{end}"))
    return folder


def train(folder, name, *args):
    return commands.attempt(
        "fairseq-train", *commands.train_args(folder / "bin", folder / name, *TINY, *args)
    )


def test_online_back_translation_of_a_sparse_model(folder):
    done = train(
        *(folder, "online", "--task", "online_backtranslation", "--arch", "transformer_entmax"),
        *("--mono-langs", "sg,pl", "--valid-lang-pairs", "sg-pl", "--share-all-embeddings"),
    )
    assert done.code == 0, done.output[-2000:]
    logs = commands.json_logs(done.output, "train_inner")
    assert len(logs) == 20
    assert min(log["support"] for log in logs) < 8  # most words had probability zero


def test_semisupervised_training_of_a_sparse_model(folder):
    done = train(
        *(folder, "semi", "--task", "semisupervised_translation", "--lang-pairs", "sg-pl,pl-sg"),
        *("--arch", "multilingual_transformer_entmax", "--lambda-otf-bt-config", 0.5),
        *("--lambda-denoising-config", 0.5, "--bt-beam-size", 3),
    )
    assert done.code == 0, done.output[-2000:]
    logs = commands.json_logs(done.output, "train_inner")
    assert len(logs) == 20
    assert min(log["support"] for log in logs) < 8
