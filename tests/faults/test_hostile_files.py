"""Checkpoints that were made to harm: nothing is executed, and one line says why they are refused.

The table is hostile.py.
"""

import copy
from argparse import Namespace

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.models import ARCH_CONFIG_REGISTRY
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_entmax.compat.endings import raised_here
from tests.builders import Task, build

from . import hostile

needs_protection = pytest.mark.skipif(
    not hasattr(torch.serialization, "add_safe_globals"), reason="torch < 2.4 cannot refuse"
)

ARCH = "transformer_entmax_tiny"
SIZES = {"encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "decoder_ffn_embed_dim": 16}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where a folder would be made, and what a user-dir would do."""
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "__init__.py").write_text(hostile.CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "pwned").exists(), "it was executed"


@pytest.fixture(scope="module")
def state():
    """What fairseq-train would have written."""
    args = Namespace(_name=ARCH, arch=ARCH, output_alpha=1.5, attention_alpha=1.5, **SIZES)
    ARCH_CONFIG_REGISTRY[ARCH](args)
    history = {"criterion_name": "EntmaxLoss", "optimizer_name": "FairseqAdam", "num_updates": 1}
    return {
        "args": None,
        "cfg": {"model": args, "task": {"_name": "translation", "data": "."}},
        "model": build(ARCH, output_alpha=1.5, attention_alpha=1.5, **SIZES).state_dict(),
        "optimizer_history": [{**history, "lr_scheduler_state": {"best": 1.0}}],
        "extra_state": {"train_iterator": {"epoch": 1}},
    }


def loaded(path):
    words = Task().source_dictionary
    task = TranslationTask(TranslationConfig(), words, words)
    (model,), _ = checkpoint_utils.load_model_ensemble([str(path)], task=task)
    return model


def refusal(path):
    with pytest.raises((ValueError, OSError)) as caught:
        loaded(path)
    message = str(caught.value)
    assert str(path) in message and len(message.splitlines()) == 1
    assert raised_here(caught.tb), "a command would end in a traceback"
    return message


@needs_protection
@pytest.mark.parametrize("name", hostile.FILES)
def test_a_file_that_is_no_checkpoint(place, name):
    path = place / "model.pt"
    hostile.FILES[name](path)
    message = refusal(path)
    assert message.startswith(("refused to load", "cannot read", "cannot load"))
    assert "weights_only" not in message


@pytest.mark.parametrize("name", hostile.REFUSED)
def test_settings_and_weights_that_are_none(place, state, name):
    change, said = hostile.REFUSED[name]
    path, state = place / "model.pt", copy.deepcopy(state)
    change(state)
    torch.save(state, str(path))
    assert said in refusal(path)


@pytest.mark.parametrize("name", hostile.IGNORED)
def test_settings_that_nothing_reads(place, state, name):
    path, changed = place / "model.pt", copy.deepcopy(state)
    hostile.IGNORED[name](changed)
    torch.save(changed, str(path))
    for parameter, value in loaded(path).state_dict().items():
        assert torch.equal(value, state["model"][parameter])
