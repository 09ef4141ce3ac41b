"""Training options of fairseq, stock recipes, and what is refused."""

import math

import pytest
import torch

from . import commands

UPDATES = 4

# the recipe of fairseq's examples/translation for IWSLT'14, with fewer layers
STOCK_RECIPE = """
    --arch transformer_iwslt_de_en --share-decoder-input-output-embed --encoder-layers 1
    --decoder-layers 1 --optimizer adam --adam-betas (0.9,0.98) --clip-norm 0.0 --lr 5e-4
    --lr-scheduler inverse_sqrt --warmup-updates 4000 --dropout 0.3 --weight-decay 0.0001
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --max-tokens 4096
    --cpu --max-update 2 --no-save --log-format json --log-interval 1
""".split()
THREE_WORDS = {
    "transformer_iwslt_de_en": "transformer_entmax_iwslt_de_en",
    "label_smoothed_cross_entropy": "entmax_loss",
}

TINY = commands.ARCHS["transformer"]
SHORT = ["--max-update", UPDATES, "--disable-validation"]

# every training here, in one process each
OPTIONS = {
    "plain": [],
    "amp": ["--amp"],
    "fp16": ["--fp16", "--memory-efficient-fp16", "--fp16-init-scale", 4],
    "unfused": ["--fused-output", "off"],
    "update-freq": ["--update-freq", 2],
    "ema": ["--store-ema", "--ema-decay", 0.5],
    "checkpoint-activations": ["--checkpoint-activations"],
    "share-all": ["--share-all-embeddings"],
    "sentence-avg": ["--sentence-avg", "--label-smoothing", 0.1],
}

REFUSED = {
    "sparse loss of a softmax model": (
        ["--arch", "transformer_tiny", "--criterion", "entmax_loss"],
        ["--criterion entmax_loss needs a model", "TransformerModel", "--arch transformer_entmax"],
    ),
    "cross-entropy of a sparse model": (
        [*TINY, "--criterion", "cross_entropy"],
        ["--criterion cross_entropy", "--output-alpha 1.5", "use `--criterion entmax_loss`"],
    ),
    "smoothed cross-entropy of a sparse LSTM": (
        [*commands.ARCHS["lstm"], "--criterion", "label_smoothed_cross_entropy"],
        ["--criterion label_smoothed_cross_entropy", "use `--criterion entmax_loss`"],
    ),
    "adaptive softmax": (
        [*TINY, "--adaptive-softmax-cutoff", "10,20"],
        ["--adaptive-softmax-cutoff", "cannot be sparse", "drop"],
    ),
    "output alpha below 1": (
        [*TINY, "--output-alpha", 0.5],
        ["--output-alpha", "must be >= 1", "got 0.5"],
    ),
    "attention alpha below 1": (
        [*TINY, "--attention-alpha", 0.5],
        ["--attention-alpha", "must be >= 1", "got 0.5"],
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def finished(data, folder):
    """name -> the finished fairseq-train."""

    def train(name, *flags):
        return ["fairseq-train", *commands.train_args(data, folder / name, *SHORT, *flags)]

    jobs = {name: train(name, *TINY, *flags) for name, flags in OPTIONS.items()}
    # a loader process that dies with the command may print after its error
    alone = ["--num-workers", 0]
    jobs.update({name: train(name, *flags, *alone) for name, (flags, _) in REFUSED.items()})
    stock = ["--arch", "transformer_tiny", "--criterion", "cross_entropy"]
    jobs["stock"] = train("stock", *stock)
    pretrained = folder / "stock" / "checkpoint_last.pt"
    jobs["finetuned"] = train(
        "finetuned", *TINY, "--finetune-from-model", pretrained, "--lr", 0, "--max-update", 1
    )
    recipe = [*STOCK_RECIPE, "--save-dir", folder / "recipe"]
    changed = [THREE_WORDS.get(word, word) for word in recipe]
    jobs["recipe"] = ["fairseq-train", data, *recipe]
    jobs["changed recipe"] = ["fairseq-train", data, *commands.USER_DIR, *changed]
    return commands.attempt_all(jobs, folder / "logs")


@pytest.fixture(scope="module")
def losses(finished):
    """``losses(name)``: the loss of every update of a training that succeeded."""

    def of(name):
        done = finished[name]
        assert done.code == 0, done.output[-3000:]
        return [line["loss"] for line in commands.json_logs(done.output, "train_inner")]

    return of


def checkpoint(folder, name):
    return folder / name / "checkpoint_last.pt"


def saved(folder, name):
    return torch.load(str(checkpoint(folder, name)), map_location="cpu")


@pytest.mark.parametrize("name", list(OPTIONS))
def test_option_trains(losses, folder, name):
    values = losses(name)
    assert len(values) == UPDATES
    assert all(0 < value < math.inf for value in values)
    state = saved(folder, name)
    assert state["optimizer_history"][-1]["num_updates"] == UPDATES
    assert all(value.isfinite().all() for value in state["model"].values())


def test_losses_fall(losses):
    first, *_, last = losses("plain")
    assert last < first


@pytest.mark.parametrize("name", ["amp", "fp16"])
def test_half_precision_trains_alike(losses, name):
    assert losses(name) == pytest.approx(losses("plain"), rel=0.05)


def test_amp_is_mixed_precision_on_a_cpu_too(losses):
    assert losses("amp") != losses("plain")


def test_fused_output_changes_nothing(losses, folder):
    assert losses("unfused") == pytest.approx(losses("plain"), rel=1e-3)
    commands.assert_same_parameters(
        checkpoint(folder, "plain"), checkpoint(folder, "unfused"), atol=1e-4
    )


def test_checkpointed_activations_change_nothing(losses, folder):
    assert losses("checkpoint-activations") == losses("plain")
    commands.assert_same_parameters(
        checkpoint(folder, "plain"), checkpoint(folder, "checkpoint-activations"), atol=1e-5
    )


def test_ema_is_saved(losses, folder):
    assert losses("ema") == losses("plain")
    state = saved(folder, "ema")
    averaged = state["extra_state"]["ema"]
    parameter = "decoder.layers.0.encoder_attn.k_proj.weight"
    assert averaged[parameter].shape == state["model"][parameter].shape
    assert not torch.equal(averaged[parameter], state["model"][parameter])


def test_stock_recipe_with_three_words_changed(losses):
    assert len(STOCK_RECIPE) == len([w for w in STOCK_RECIPE if w not in THREE_WORDS]) + 2
    assert len(losses("recipe")) == len(losses("changed recipe")) == 2
    assert all(0 < loss < math.inf for loss in losses("changed recipe"))
    assert losses("recipe") != losses("changed recipe")


def test_finetuning_starts_from_a_stock_model(losses, folder):
    assert len(losses("stock")) == UPDATES and len(losses("finetuned")) == 1
    pretrained, finetuned = (saved(folder, name)["model"] for name in ("stock", "finetuned"))
    assert pretrained.keys() == finetuned.keys()
    assert all(torch.equal(pretrained[name], finetuned[name]) for name in pretrained)


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(finished, name):
    code, output = finished[name]
    assert code == 2
    last_line = output.strip().splitlines()[-1]
    assert last_line.startswith("fairseq-train: error: ")
    for words in REFUSED[name][1]:
        assert words in last_line
    assert not commands.json_logs(output, "train_inner")  # before anything was trained
