"""Unigram label smoothing: counted on the training targets, the same in every path."""

from collections import Counter

import pytest
import torch
from fairseq.data import LanguagePairDataset, ListDataset
from torch.testing import assert_close

from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from fairseq_entmax.data import unigram
from fairseq_entmax.functional import reference
from tests.builders import Task, batch, build, sharpen

EPS = 0.3
SENTENCES = [[4, 5, 5, 2], [6, 2], [4, 4, 4, 7, 2]]


class Loaded(Task):
    """A task that loads its training data when asked to."""

    def __init__(self, sentences=SENTENCES):
        super().__init__()
        self.datasets = {}
        self.sentences = sentences

    def load_dataset(self, split):
        assert split == "train"
        if self.sentences is None:
            raise FileNotFoundError(split)
        tokens = ListDataset([torch.tensor(s) for s in self.sentences])
        sizes = list(map(len, self.sentences))
        words = self.source_dictionary
        self.datasets[split] = LanguagePairDataset(tokens, sizes, words, tokens, sizes, words)


def frequencies(n_words):
    counted = Counter(token for sentence in SENTENCES for token in sentence)
    counts = torch.tensor([float(counted[i]) for i in range(n_words)])
    return counts / counts.sum()


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_counts_are_those_of_the_targets(at_once, monkeypatch):
    monkeypatch.setattr(unigram, "_AT_ONCE", at_once)
    task = Loaded()
    expected = frequencies(len(task.target_dictionary))
    assert_close(unigram.target_frequencies(task), expected)
    assert_close(unigram.target_frequencies(task), expected)  # now loaded before


def test_without_training_data_the_dictionary_counts(caplog):
    task = Loaded(None)
    words = task.target_dictionary
    words.count[5] = 93
    expected = torch.tensor([float(c) for c in words.count])
    assert_close(unigram.target_frequencies(task), expected / expected.sum())
    assert "no training targets to count" in caplog.text


@pytest.mark.parametrize("fused_output", ["auto", "off"])
@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_loss_is_the_oracles(alpha, fused_output):
    task = Loaded()
    model, sample = (
        sharpen(build("transformer_entmax_tiny", task=task, output_alpha=alpha)),
        batch(task),
    )
    criterion = EntmaxLossCriterion(
        task,
        False,
        label_smoothing=EPS,
        label_smoothing_prior="unigram",
        fused_output=fused_output,
    )
    with torch.no_grad():
        scores = model(**sample["net_input"])[0]
    pad = task.target_dictionary.pad()
    expected = reference.entmax_loss(
        scores,
        sample["target"],
        alpha,
        ignore_index=pad,
        label_smoothing=EPS,
        smoothing_probs=frequencies(len(task.target_dictionary)),
    )
    loss = criterion(model, sample)[0]
    assert_close(loss.double(), expected.sum(), atol=1e-4, rtol=1e-5)


def test_uniform_needs_no_data():
    task = Loaded(None)
    criterion = EntmaxLossCriterion(task, False, label_smoothing=EPS)
    criterion(build("transformer_entmax_tiny", task=task), batch(task))
    assert not task.datasets
