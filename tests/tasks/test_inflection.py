"""``--task inflection``: what it counts and how it averages over languages."""

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.logging import metrics

from fairseq_entmax.scoring.counts import COLUMNS
from fairseq_entmax.tasks.inflection import InflectionConfig, InflectionTask

SYMBOLS = ["a", "b", "<N>", "<lang:de>", "<lang:ru>"]


@pytest.fixture
def task():
    words = Dictionary()
    for symbol in SYMBOLS:
        words.add_symbol(symbol)
    task = InflectionTask(InflectionConfig(eval_inflection=True), words, words)
    task.transduction_generator = None
    return task


def rows(words, lines):
    encoded = [
        torch.tensor(
            [words.unk() if s == "?" else words.index(s) for s in line.split()] + [words.eos()]
        )
        for line in lines
    ]
    return torch.nn.utils.rnn.pad_sequence(encoded, True, words.pad())


# source, reference, answer
BATCHES = [
    [
        ("a <lang:de> <N>", "a b", "a b"),
        ("b <lang:de> <N>", "a b", "b"),
        ("b <lang:ru>", "b b b", "b a b"),
    ],
    [
        ("a a <lang:ru> <N>", "a", "a"),
        ("b <lang:ru> <N>", "? a", "? a"),  # what is unknown cannot be answered
        ("a <lang:ru>", "b a", ""),
    ],
]
DE, RU = (50.0, 0.5), (25.0, 1.0)  # accuracy, mean of the distances 0 1 and 1 0 1 2


def validate(task, batches, monkeypatch):
    words = task.target_dictionary
    answers = {}
    monkeypatch.setattr(
        task, "inference_step", lambda generator, models, sample: answers[id(sample)]
    )
    logs = []
    with metrics.aggregate(new_root=True) as aggregated:
        for batch in batches:
            sources, references, given = zip(*batch)
            sample = {
                "net_input": {"src_tokens": rows(words, sources)},
                "target": rows(words, references),
            }
            answers[id(sample)] = [
                [{"tokens": row[row != words.pad()]}] for row in rows(words, given)
            ]
            logs.append({"_transduction_counts": task.count(sample, None)})
            task.reduce_metrics(logs[-1:], Criterion())
    return aggregated.get_smoothed_values()


class Criterion:
    """A criterion that logs nothing."""

    @staticmethod
    def reduce_metrics(logging_outputs):
        pass


def test_means_over_languages(task, monkeypatch):
    values = validate(task, BATCHES, monkeypatch)
    assert values["accuracy"] == pytest.approx((DE[0] + RU[0]) / 2)
    assert values["levenshtein"] == pytest.approx((DE[1] + RU[1]) / 2)
    assert not any(name.startswith("accuracy_") for name in values)


def test_each_language_on_request(task, monkeypatch):
    task.cfg.eval_inflection_languages = True
    values = validate(task, BATCHES, monkeypatch)
    assert (values["accuracy_de"], values["levenshtein_de"]) == DE
    assert (values["accuracy_ru"], values["levenshtein_ru"]) == RU


def test_words_without_a_language_are_a_group(task, monkeypatch):
    values = validate(task, [[("a <N>", "a", "a"), ("b <N> <lang:de>", "b", "a")]], monkeypatch)
    assert values["accuracy"] == 50.0


def sums(*rows):
    """Words, correct answers and distances of each language; nothing else was counted."""
    return torch.nn.functional.pad(torch.tensor(rows), (0, len(COLUMNS) - 3))


def test_counts_of_workers_add_up(task, monkeypatch):
    one, other = (
        sums([0, 0, 0], [2, 1, 3], [0, 0, 0]),
        sums([0, 0, 0], [2, 1, 1], [1, 0, 4]),
    )
    with metrics.aggregate(new_root=True) as aggregated:
        logs = [{"_transduction_counts": one}, {"_transduction_counts": other}]
        task.reduce_metrics(logs, Criterion())
    assert aggregated.get_smoothed_values()["levenshtein"] == pytest.approx((1 + 4) / 2)


def test_training_logs_no_accuracy(task):
    with metrics.aggregate(new_root=True) as aggregated:
        task.reduce_metrics([{"ntokens": 3}], Criterion())
    assert "accuracy" not in aggregated.get_smoothed_values()
