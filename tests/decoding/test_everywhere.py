"""A generator that nobody's task built searches a sparse model right too."""

import os
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from fairseq.sequence_generator import (
    EnsembleModel,
    SequenceGenerator,
    SequenceGeneratorWithAlignment,
)

from fairseq_entmax.decoding import SparseSearch
from tests.builders import Task, batch, build, scripted
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
    generator = TableTask(WORDS).build_generator(models(), Namespace(beam=4, nbest=2))
    assert isinstance(generator.search, SparseSearch)
    assert not isinstance(generator.search.inner, SparseSearch)
    sample = table_sample(WORDS, [4])
    with torch.no_grad():
        assert generator.generate(models(), sample)[0]


@pytest.mark.parametrize("name", ["beam", "nbest"])
def test_a_beam_of_no_length_is_refused(name):
    options = Namespace(**{"beam": 4, "nbest": 2, name: 0})
    with pytest.raises(ValueError, match=f"--{name} must be at least 1, got 0"):
        TableTask(WORDS).build_generator(models(), options)


@pytest.mark.parametrize("by_task", [False, True], ids=["built", "by task"])
def test_torchscript_compiles_the_stock_search(by_task):
    """With support everywhere (alpha just above 1, small scores) both searches agree."""
    built, words = [build("transformer_tiny_entmax", output_alpha=1.01)], Task().target_dictionary
    options = {"beam": 3, "max_len_b": 6, "no_repeat_ngram_size": 2}
    if by_task:
        generator = TableTask(words).build_generator(built, Namespace(**options))
    else:
        generator = SequenceGenerator(
            built, words, beam_size=3, max_len_b=6, no_repeat_ngram_size=2
        )
    net_input = batch()["net_input"]
    sample = {"net_input": {key: net_input[key] for key in ("src_tokens", "src_lengths")}}
    compiled = scripted(generator)
    assert isinstance(generator.search, SparseSearch)  # ours is left as it was
    expected, found = generator.generate(built, sample), compiled(sample)
    for hypotheses, others in zip(expected, found):
        assert [h["tokens"].tolist() for h in hypotheses] == [h["tokens"].tolist() for h in others]


LATE = """
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks import online_backtranslation
from tests.decoding import table_model  # imports fairseq_entmax only now
words = table_model.dictionary("abcd")
model = table_model.table_model(words, lambda sentence, prefix: {words.eos(): 1.0})
sample = table_model.table_sample(words, [4])
for owner in (SequenceGenerator, online_backtranslation.SequenceGenerator):
    found = owner([model], words, beam_size=3, min_len=0).generate([model], sample)
    assert [(h["tokens"].tolist(), h["score"]) for h in found[0]] == [([words.eos()], 0)], found
"""


@pytest.mark.parametrize("first", ["", "import fairseq_entmax"], ids=["imported late", "first"])
def test_the_order_of_imports_does_not_matter(first):
    code = f"import sys\n{first}\nassert ('fairseq_entmax' in sys.modules) == {bool(first)}\n{LATE}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
