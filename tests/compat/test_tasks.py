"""Tasks that fairseq ships and that fail before or in their first update."""

from argparse import Namespace

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.tasks.semisupervised_translation import SemisupervisedTranslationTask
from fairseq.tasks.translation_from_pretrained_bart import TranslationFromPretrainedBARTTask

import fairseq_entmax  # noqa: F401  what is under test


def test_bart_task_has_its_settings():
    settings = Namespace(langs="en,de", source_lang="en", target_lang="de")
    task = TranslationFromPretrainedBARTTask(settings, Dictionary(), Dictionary())
    assert task.args is settings
    task.args = None  # a task of one's own may set what it likes
    assert task.args is None


class Recorder:
    """An optimizer that keeps the losses it is given."""

    def __init__(self):
        self.losses = []

    def backward(self, loss):
        self.losses.append(loss.item())


def update(ignore_grad=False, update_num=0, **weights):
    """One update of three parts: parallel, back-translated and denoised sentences."""
    task = SemisupervisedTranslationTask.__new__(SemisupervisedTranslationTask)
    task.lang_pairs = ["en-de", "de-en"]
    task.lambda_parallel_steps = task.lambda_otf_bt_steps = task.lambda_denoising_steps = None
    for name in ("parallel", "otf_bt", "denoising"):
        setattr(task, f"lambda_{name}", weights.get(name, 0.0))
    model, seen = torch.nn.Module(), []
    model.models = {pair: pair for pair in ("en-de", "de-en", "de-de", "en-en")}
    keys = ["en-de", "de-en", "bt:en-de", "bt:de-en", "denoising:en-de", "denoising:de-en"]
    sample = {key: {"n": 10.0**i} for i, key in enumerate(keys)}
    sample["denoising:de-en"] = None  # a shorter part has come to its end

    def criterion(model, part):
        seen.append(model)
        return torch.tensor(part["n"]), 2, {"loss": part["n"], "ntokens": 3}

    optimizer = Recorder()
    result = task.train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
    assert model.training
    return result, optimizer.losses, seen


def test_semisupervised_update_adds_up_its_parts():
    (loss, size, log), losses, seen = update(parallel=1.0, otf_bt=0.5, denoising=0.25)
    assert losses == [1.0, 10.0, 50.0, 500.0, 2500.0]
    assert seen == ["en-de", "de-en", "en-de", "de-en", "de-de"]
    assert loss == sum(losses) and size == 10
    assert log["loss"] == 11111 and log["ntokens"] == 15
    assert log["bt:de-en:loss"] == 1000


@pytest.mark.parametrize("part", ["parallel", "otf_bt", "denoising"])
def test_semisupervised_update_of_one_part(part):
    (loss, _, _), losses, seen = update(update_num=3, **{part: 1.0})
    assert loss == sum(losses) and len(seen) == (1 if part == "denoising" else 2)


def test_semisupervised_dummy_batch_has_no_gradient():
    (loss, size, _), losses, _ = update(ignore_grad=True, parallel=1.0)
    assert (loss, size, losses) == (0.0, 4, [0.0, 0.0])
