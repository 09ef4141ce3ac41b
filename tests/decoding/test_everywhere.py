"""A generator that nobody's task built searches a sparse model right too."""

import pytest
import torch
from fairseq.sequence_generator import (
    EnsembleModel,
    SequenceGenerator,
    SequenceGeneratorWithAlignment,
)

from fairseq_entmax.decoding import SparseSearch
from tests.decoding.table_model import (
    TableTask,
    dictionary,
    random_table,
    strings,
    table_model,
    table_sample,
)

WORDS = dictionary("abcd")
BEAM = 10


def models(alpha=1.5):
    return [table_model(WORDS, random_table(WORDS, 3, support=2, end=True, depth=3), alpha)]


def test_a_subclass_is_adapted():
    generator = SequenceGeneratorWithAlignment(models(), WORDS, beam_size=BEAM)
    assert isinstance(generator.search, SparseSearch)


@pytest.mark.parametrize("ensemble", [False, True], ids=["list", "ensemble"])
def test_a_generator_built_by_hand_finds_all_strings(ensemble):
    built = models()
    given = EnsembleModel(built) if ensemble else built
    generator = SequenceGenerator(given, WORDS, beam_size=BEAM, max_len_b=6, min_len=0)
    assert isinstance(generator.search, SparseSearch)
    sample = table_sample(WORDS, [4, 5])
    for sentence, hypotheses in zip([4, 5], generator.generate(built, sample)):
        table = random_table(WORDS, 3, support=2, end=True, depth=3)
        found = strings(WORDS, table, sentence, 6)
        assert len(found) <= BEAM
        assert {tuple(h["tokens"].tolist()[:-1]) for h in hypotheses} == set(found)


def test_softmax_generators_stay_as_they_are():
    generator = SequenceGenerator(models(alpha=1.0), WORDS, beam_size=2)
    assert not isinstance(generator.search, SparseSearch)
    assert generator.generate.__func__ is SequenceGenerator.generate


def test_a_generator_of_a_task_is_adapted_once():
    from argparse import Namespace

    generator = TableTask(WORDS).build_generator(models(), Namespace(beam=4, nbest=2))
    assert isinstance(generator.search, SparseSearch)
    assert not isinstance(generator.search.inner, SparseSearch)
    sample = table_sample(WORDS, [4])
    with torch.no_grad():
        assert generator.generate(models(), sample)[0]
