"""Trained models from Python, as the README of fairseq has it."""

import math

import pytest
from fairseq.models import MODEL_REGISTRY
from fairseq.models.transformer import TransformerModel

import fairseq_entmax  # noqa: F401  (registers the models)

from . import corpus

CLASSES = {name: MODEL_REGISTRY[f"{name}_entmax"] for name in ("transformer", "lstm")}
every_arch = pytest.mark.parametrize("arch", list(CLASSES))


@pytest.fixture(scope="module")
def hub(trained, data):
    def load(arch, **options):
        return (
            CLASSES[arch]
            .from_pretrained(
                str(trained(arch)), "checkpoint_last.pt", data_name_or_path=str(data), **options
            )
            .eval()
        )

    return load


@every_arch
def test_translate(hub, arch):
    model = hub(arch)
    singulars, plurals = zip(*corpus.noun_pairs()["test"])
    answers = model.translate(list(singulars), beam=10)
    assert len(answers) == corpus.TEST
    assert sum(answer == plural for answer, plural in zip(answers, plurals)) > corpus.TEST // 2
    assert model.translate(singulars[0]) == answers[0]


@every_arch
def test_translate_anything(hub, arch):
    answers = hub(arch).translate(["", "§ §", "H u n d"], beam=10)
    assert len(answers) == 3 and all(isinstance(answer, str) for answer in answers)


@every_arch
def test_generate_gives_scores_and_zeros(hub, arch):
    model = hub(arch)
    hypotheses = model.generate(model.encode("H u n d"), beam=10)
    assert 1 <= len(hypotheses) <= 10
    scores = [hypothesis["score"].item() for hypothesis in hypotheses]
    assert scores == sorted(scores, reverse=True) and scores[-1] > -math.inf
    samples = model.sample(["H u n d", "T a g"], beam=3, sampling=True)
    assert len(samples) == 2


def test_stock_class_loads_a_sparse_checkpoint(trained, data):
    model = TransformerModel.from_pretrained(
        str(trained("transformer")), "checkpoint_last.pt", data_name_or_path=str(data)
    ).eval()
    assert isinstance(model.models[0], CLASSES["transformer"])
    assert model.translate("H u n d", beam=10)
