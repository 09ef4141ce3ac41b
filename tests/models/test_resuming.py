"""A resumed training is told where its alphas are not those of its checkpoint."""

import logging
from argparse import Namespace

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.trainer import Trainer
from omegaconf import OmegaConf

from fairseq_entmax.models import resuming

SAVED = {"output_alpha": 1.5, "attention_alpha": 1.5, "encoder_attention_alpha": 1.5}


@pytest.fixture
def said(tmp_path, monkeypatch, caplog):
    """``said(saved, now)``: what is warned of when a trainer with these settings loads."""

    def read(path, *args, **kwargs):
        return torch.load(path, weights_only=False)

    monkeypatch.setattr(checkpoint_utils, "load_checkpoint_to_cpu", read)

    def load(trainer, filename):
        checkpoint_utils.load_checkpoint_to_cpu(filename)
        return {"epoch": 3}

    monkeypatch.setattr(Trainer, "load_checkpoint", load)
    resuming.warn_of_other_alphas()

    def loaded(saved, now):
        path = str(tmp_path / "checkpoint.pt")
        torch.save({"cfg": None if saved is None else {"model": saved}}, path)
        trainer = Namespace(cfg=Namespace(model=now))
        with caplog.at_level(logging.WARNING):
            assert Trainer.load_checkpoint(trainer, path) == {"epoch": 3}
        assert checkpoint_utils.load_checkpoint_to_cpu is read
        return [record.getMessage().partition(" ")[2] for record in caplog.records]

    return loaded


@pytest.mark.parametrize("form", [lambda s: Namespace(**s), OmegaConf.create])
def test_other_alphas_are_said(said, form):
    found = said(form(SAVED), form({**SAVED, "output_alpha": 2.0, "encoder_attention_alpha": 1.0}))
    assert found == [
        "was trained with --output-alpha 1.5 and goes on with 2",
        "was trained with --encoder-attention-alpha 1.5 and goes on with 1",
    ]


@pytest.mark.parametrize("saved", [None, Namespace(), Namespace(**SAVED)])
def test_the_same_alphas_and_stock_checkpoints_are_not(said, saved):
    assert said(saved, Namespace(**SAVED)) == []
