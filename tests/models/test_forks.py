"""Checkpoints of forks with alpha in the criterion: a warning names the override that is right."""

import ast
import logging
import re
from argparse import Namespace

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.models import ARCH_CONFIG_REGISTRY, build_model

from fairseq_entmax.functional import entmax
from fairseq_entmax.models import forks
from tests.builders import TINY_LSTM, TINY_TRANSFORMER, Task, batch, build

ARCHS = {"transformer_tiny": TINY_TRANSFORMER, "lstm": TINY_LSTM}
FORMS = ("namespace", "config")
STATE = {
    "extra_state": {"epoch": 1, "train_iterator": {"epoch": 1}},
    "optimizer_history": [{"criterion_name": "", "num_updates": 1, "lr_scheduler_state": {}}],
}
CRITERION = {"_name": "fyls_loss", "loss_alpha": 1.5, "label_smoothing": 0.1}


def settings_of(arch, criterion):
    args = Namespace(arch=arch, task="translation", criterion=criterion, **ARCHS[arch])
    ARCH_CONFIG_REGISTRY[arch](args)
    return args


def state_of(arch, form, criterion=CRITERION):
    """A checkpoint with a stock model, in one of the forms that fairseq has had."""
    args = settings_of(arch, criterion["_name"])
    state = {"model": build(arch).state_dict(), "args": None, **STATE}
    if form == "namespace":
        args._name = arch
        model = args
    else:
        model = {**vars(args), "_name": arch}
    task = {"_name": "translation", "source_lang": "a", "target_lang": "b"}
    return {**state, "cfg": {"_name": None, "model": model, "criterion": criterion, "task": task}}


class Loading(Task):
    """A task that builds models, as loading asks of it."""

    def build_model(self, cfg, from_checkpoint=False):
        return build_model(cfg, self, from_checkpoint)


@pytest.fixture
def load(tmp_path, caplog):
    """``load(state, overrides)``: the model, its settings, and what was warned of."""

    def loaded(state, overrides=None):
        torch.save(state, str(tmp_path / "checkpoint.pt"))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            models, cfg = checkpoint_utils.load_model_ensemble(
                [str(tmp_path / "checkpoint.pt")], arg_overrides=overrides or {}, task=Loading()
            )
        said = [r.getMessage() for r in caplog.records if "SOFTMAX" in r.getMessage()]
        return models[0].eval(), cfg, said

    return loaded


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("form", FORMS)
def test_the_named_override_is_right(load, arch, form):
    state = state_of(arch, form)
    stock, _, said = load(state)
    assert len(said) == 1 and "alpha 1.5" in said[0] and "checkpoint.pt" in said[0]
    named = re.search(r'--model-overrides "(.*)"', said[0]).group(1)

    sparse, cfg, said = load(state, ast.literal_eval(named))
    assert not said
    inputs = batch()["net_input"]
    with torch.no_grad():
        scores = stock(**inputs)[0]
        outputs = sparse(**inputs)
        assert torch.equal(outputs[0], scores)  # attention is softmax in both
        probs = sparse.get_normalized_probs(outputs, log_probs=False)
    assert torch.equal(probs, entmax(scores, 1.5))
    assert cfg.task._name == "translation" and cfg.criterion._name == "fyls_loss"


@pytest.mark.parametrize(
    "criterion",
    [
        {"_name": "entmax_loss", "label_smoothing": 0.1},  # of this package
        {"_name": "cross_entropy", "loss_alpha": 1.5},
        {"_name": "entmax_loss", "loss_alpha": 1.0},
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_others_are_not_warned_of(load, form, criterion):
    assert not load(state_of("lstm", form, criterion))[2]


def test_an_arch_without_a_twin():
    assert forks.override_for(Namespace(_name="of_another_user_dir"), 1.5) is None
