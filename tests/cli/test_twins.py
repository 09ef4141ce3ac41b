"""Sparse twins under the commands, tasks and data of their stock models.

Each recipe is trained for some updates, decoded from the checkpoint without further flags, and,
with every alpha 1, is the stock model to the last bit. docs/recipes.md lists what stands here.
"""

import re
from typing import Any, List, NamedTuple

import numpy as np
import pytest
import torch

from . import commands, corpus

SMALL = ["--encoder-embed-dim", 16, "--decoder-embed-dim", 16]
FFN = ["--encoder-ffn-embed-dim", 24, "--decoder-ffn-embed-dim", 24]
LAYERS = ["--encoder-layers", 2, "--decoder-layers", 2]
HEADS = ["--encoder-attention-heads", 2, "--decoder-attention-heads", 2]
TRANSFORMER = [*SMALL, *FFN, *LAYERS, *HEADS]
DECODER = [
    *("--decoder-embed-dim", 16, "--decoder-ffn-embed-dim", 24, "--decoder-layers", 2),
    *("--decoder-attention-heads", 2),
]
ENCODER = [
    *("--encoder-embed-dim", 16, "--encoder-ffn-embed-dim", 24, "--encoder-layers", 2),
    *("--encoder-attention-heads", 2),
]
CONVOLUTIONS = ["--encoder-layers", "[(16, 3)] * 2", "--decoder-layers", "[(16, 3)] * 2"]
KERNELS = ["--encoder-kernel-size-list", "[3, 3]", "--decoder-kernel-size-list", "[3, 3]"]
LM = ["--task", "language_modeling", "--tokens-per-sample", 32, "--sample-break-mode", "eos"]
SPEECH = ["--task", "speech_to_text", "--config-yaml", "config.yaml"]
MULTILINGUAL = ["--lang-pairs", "sg-pl,pl-sg"]


class Recipe(NamedTuple):
    """One row of docs/recipes.md."""

    arch: str
    flags: List[Any]
    data: str = "nouns"
    criterion: str = "entmax_loss"
    stock_criterion: str = "cross_entropy"
    decode: str = "generate"


RECIPES = {
    **{
        name: Recipe(arch, TRANSFORMER)
        for name, arch in {
            "transformer": "transformer",
            "transformer_tiny": "transformer_tiny",
            "transformer_iwslt_de_en": "transformer_iwslt_de_en",
            "transformer_wmt_en_de": "transformer_wmt_en_de",
            "transformer_wmt_en_de_big": "transformer_wmt_en_de_big",
            "transformer_wmt_en_de_big_t2t": "transformer_wmt_en_de_big_t2t",
            "transformer_vaswani_wmt_en_de_big": "transformer_vaswani_wmt_en_de_big",
            "transformer_vaswani_wmt_en_fr_big": "transformer_vaswani_wmt_en_fr_big",
            "bart": "bart_base",
        }.items()
    },
    "lstm": Recipe("lstm", [*SMALL, "--encoder-hidden-size", 16, "--decoder-hidden-size", 16]),
    "fconv": Recipe("fconv", [*SMALL, *CONVOLUTIONS, "--decoder-out-embed-dim", 16]),
    "fconv_self_att": Recipe(
        "fconv_self_att",
        [
            *(*SMALL, *CONVOLUTIONS, "--decoder-out-embed-dim", 16, "--self-attention", "True"),
            *("--multihead-attention-nheads", 2, "--multihead-self-attention-nheads", 2),
            *("--encoder-attention-nheads", 1, "--project-input", "True"),
        ],
        decode="validate",  # stock fails in incremental decoding
    ),
    "lightconv": Recipe(
        "lightconv",
        [
            *TRANSFORMER,
            "--encoder-kernel-size-list",
            "[3, 3]",
            "--decoder-kernel-size-list",
            "[3, 3]",
        ],
    ),
    "dynamicconv": Recipe(
        "lightconv",
        [
            *(*TRANSFORMER, *KERNELS),
            *("--encoder-conv-type", "dynamic", "--decoder-conv-type", "dynamic"),
        ],
    ),
    "transformer_align": Recipe(
        "transformer_align",
        [*TRANSFORMER, "--alignment-layer", 1, "--load-alignments"],
        data="aligned",
        criterion="entmax_loss_with_alignment",
        stock_criterion="label_smoothed_cross_entropy_with_alignment",
    ),
    "transformer_lm": Recipe("transformer_lm", [*LM, *DECODER], data="text", decode="eval_lm"),
    "lstm_lm": Recipe(
        "lstm_lm",
        [
            *LM,
            "--decoder-embed-dim",
            16,
            "--decoder-hidden-size",
            16,
            "--decoder-out-embed-dim",
            16,
        ],
        data="text",
        decode="eval_lm",
    ),
    "fconv_lm": Recipe(
        "fconv_lm",
        [*LM, "--decoder-embed-dim", 16, "--decoder-layers", "[(16, 3)] * 2"],
        data="text",
        decode="eval_lm",
    ),
    "lightconv_lm": Recipe(
        "lightconv_lm",
        [*LM, *DECODER, "--decoder-kernel-size-list", "[3, 3]"],
        data="text",
        decode="eval_lm",
    ),
    "roberta": Recipe(
        "roberta_base",
        [*ENCODER, "--task", "masked_lm", "--tokens-per-sample", 32, "--mask-prob", 0.3],
        data="text",
        criterion="masked_entmax_loss",
        stock_criterion="masked_lm",
        decode="validate",
    ),
    "denoising": Recipe(
        "bart_base",
        [
            *(*TRANSFORMER, "--task", "denoising", "--tokens-per-sample", 32, "--mask", 0.3),
            *("--mask-length", "subword", "--replace-length", 1, "--sample-break-mode", "eos"),
        ],
        data="text",
        decode="validate",
    ),
    "translation_from_pretrained_bart": Recipe(
        "mbart_base",
        [*TRANSFORMER, "--task", "translation_from_pretrained_bart", "--langs", "sg,pl"],
    ),
    "multilingual_translation": Recipe(
        "multilingual_transformer",
        [*TRANSFORMER, "--task", "multilingual_translation", *MULTILINGUAL],
    ),
    "translation_multi_simple_epoch": Recipe(
        "transformer",
        [
            *(*TRANSFORMER, "--task", "translation_multi_simple_epoch", "--lang-pairs", "sg-pl"),
            *("--langs", "sg,pl", "--encoder-langtok", "src"),
        ],
    ),
    "s2t_transformer": Recipe(
        "s2t_transformer", [*SPEECH, *TRANSFORMER, "--conv-channels", 16], data="speech"
    ),
    "s2t_conformer": Recipe(
        "s2t_conformer",
        [*SPEECH, *TRANSFORMER, "--conv-channels", 16, "--attn-type", "espnet"],
        data="speech",
    ),
    "convtransformer": Recipe(
        "convtransformer",
        [*SPEECH, *TRANSFORMER, "--input-feat-per-channel", 8, "--conv-out-channels", 4],
        data="speech",
    ),
    "s2t_berard": Recipe("s2t_berard_256_3_3", [*SPEECH], data="speech"),
}
over_recipes = pytest.mark.parametrize("name", RECIPES)


def _aligned(data, folder):
    text = folder / "text"
    for name, pairs in corpus.noun_pairs().items():
        corpus.write(text, name, pairs)
        lines = (
            " ".join(f"{i}-{i}" for i in range(min(len(a.split()), len(b.split()))))
            for a, b in pairs
        )
        (text / f"{name}.align").write_text("".join(f"{line}\n" for line in lines))
    commands.run(
        *("fairseq-preprocess", "--source-lang", "sg", "--target-lang", "pl", "--align-suffix"),
        *("align", "--trainpref", text / "train", "--validpref", text / "valid"),
        *("--testpref", text / "test", "--destdir", folder / "bin", "--joined-dictionary"),
    )


def _text(data, folder):
    lines = [line for pair in corpus.sentence_pairs() for line in pair]
    for name, part in (("train", lines), ("valid", lines[::3]), ("test", lines[1::3])):
        letters = [" ".join(line.replace(" ", "_")) for line in part]
        (folder / name).write_text("".join(f"{line}\n" for line in letters), encoding="utf-8")
    commands.run(
        *("fairseq-preprocess", "--only-source", "--destdir", folder / "bin"),
        *("--trainpref", folder / "train", "--validpref", folder / "valid"),
        *("--testpref", folder / "test"),
    )


def _speech(data, folder):
    """Eight numbers for each of some frames a letter."""
    speech = folder / "bin"
    speech.mkdir()
    generator = np.random.default_rng(4)
    letters = generator.normal(size=(300, 8)).astype(np.float32)
    for name, pairs in corpus.noun_pairs().items():
        rows = ["id\taudio\tn_frames\ttgt_text\tspeaker"]
        for i, (word, plural) in enumerate(pairs):
            heard = np.repeat(letters[[ord(c) % 300 for c in word.split()]], 6, axis=0)
            np.save(speech / f"{name}{i}.npy", heard)
            rows.append(f"{name}{i}\t{name}{i}.npy\t{len(heard)}\t{plural}\tspk")
        (speech / f"{name}.tsv").write_text("".join(f"{r}\n" for r in rows), encoding="utf-8")
    (speech / "dict.txt").write_text((data / "dict.pl.txt").read_text(encoding="utf-8"))
    (speech / "config.yaml").write_text(
        f"vocab_filename: dict.txt\naudio_root: {speech}\ninput_feat_per_channel: 8\n"
        "input_channels: 1\nsampling_alpha: 1.0\n"
    )


@pytest.fixture(scope="session")
def corpora(shared, data):
    """The folder of binarised data of each kind."""
    makers = {"aligned": _aligned, "text": _text, "speech": _speech}

    def make(folder):
        for kind, maker in makers.items():
            (folder / kind).mkdir()
            maker(data, folder / kind)

    folder = shared("corpora of twins", make)
    return {"nouns": data, **{kind: folder / kind / "bin" for kind in makers}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpora):
    """Every recipe: trained sparse, decoded, and trained as stock and as its twin at alpha 1."""
    folder = tmp_path_factory.mktemp("twins")
    jobs = {}
    for name, recipe in RECIPES.items():
        data = corpora[recipe.data]
        twin = f"{recipe.arch}_entmax"
        save = folder / name

        def train(arch, criterion, save, updates, recipe=recipe, data=data):
            return [
                "fairseq-train",
                *commands.train_args(data, save, *recipe.flags, "--arch", arch),
                *("--criterion", criterion, "--max-update", updates, "--dropout", 0.1),
                # denoising draws its noise from the generator that dropout draws from
                *("--num-workers", 0, "--data-buffer-size", 0, "--disable-validation"),
            ]

        softmax = ["--output-alpha", 1, "--attention-alpha", 1]
        if recipe.arch in ("lstm_lm", "fconv_lm", "lightconv_lm"):
            softmax = softmax[:2]
        jobs[name] = train(twin, recipe.criterion, save, 20)
        jobs[f"{name} stock"] = train(recipe.arch, recipe.stock_criterion, folder / f"{name}-s", 3)
        jobs[f"{name} alpha 1"] = [
            *train(twin, recipe.stock_criterion, folder / f"{name}-1", 3),
            *softmax,
        ]
        jobs[f"{name} decoded"] = _decoding(recipe, data, save / "checkpoint_last.pt")
    return folder, commands.attempt_all(jobs, folder / "logs")


def _decoding(recipe, data, checkpoint):
    """The command that reads the checkpoint: what it says of the task, nothing of the model."""
    given = list(map(str, recipe.flags))
    told = []
    for flag in ("--task", "--lang-pairs", "--langs", "--encoder-langtok", "--config-yaml"):
        if flag in given:
            told += [flag, given[given.index(flag) + 1]]
    if recipe.decode == "validate":
        told += ["--valid-subset", "test"]
        told += [] if "--task" in told else ["--task", "translation"]
    else:
        told += ["--gen-subset", "test"]
    if "--lang-pairs" in told or "--langs" in told:
        told += ["--source-lang", "sg", "--target-lang", "pl"]
    return [
        f"fairseq-{recipe.decode}",
        *(data, *commands.USER_DIR, "--path", checkpoint, "--cpu", "--batch-size", 8, *told),
    ]


@over_recipes
def test_sparse_twin_is_trained(finished, name):
    _, jobs = finished
    assert jobs[name].code == 0, jobs[name].output[-3000:]
    last = commands.json_logs(jobs[name].output, "train_inner")[-1]
    assert last["num_updates"] == 20 and last["support"] >= 1
    losses = [log["loss"] for log in commands.json_logs(jobs[name].output, "train_inner")]
    assert min(losses[10:]) < losses[0]


@over_recipes
def test_alpha_one_is_stock_after_training(finished, name):
    folder, jobs = finished
    for kind in ("stock", "alpha 1"):
        assert jobs[f"{name} {kind}"].code == 0, jobs[f"{name} {kind}"].output[-3000:]
    stock, twin = (
        torch.load(str(folder / f"{name}-{kind}" / "checkpoint_last.pt"))["model"]
        for kind in ("s", "1")
    )
    assert stock.keys() == twin.keys()
    # lightconv's bias is memory that nobody has filled; the model does not use it
    compared = [key for key in stock if not key.endswith(".conv.conv_bias")]
    assert not [key for key in compared if not torch.equal(stock[key], twin[key])]


@over_recipes
def test_checkpoint_decodes_without_flags(finished, name):
    _, jobs = finished
    done = jobs[f"{name} decoded"]
    assert done.code == 0, done.output[-3000:]
    if RECIPES[name].decode == "generate":
        assert len(re.findall(r"^H-\d+\t", done.output, re.M)) >= corpus.TEST


def test_the_page_lists_what_stands_here():
    page = (commands.REPO / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| `(\w+)` \| `(\w+)` \| `([\w-]+)` \|$", page, re.M)
    expected = []
    for name, recipe in RECIPES.items():
        given = list(map(str, recipe.flags))
        task = given[given.index("--task") + 1] if "--task" in given else "translation"
        reader = "fairseq-" + recipe.decode.replace("_", "-")
        expected.append((name, task, f"{recipe.arch}_entmax", recipe.criterion, reader))
    assert rows == expected
