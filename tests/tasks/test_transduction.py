"""``--task transduction``: what it logs, of symbols, morphemes and subwords."""

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.logging import metrics

from fairseq_entmax.data.spelling import Spelling
from fairseq_entmax.data.transduction import FORMATS, Item
from fairseq_entmax.scoring.counts import count, rates
from fairseq_entmax.tasks.inflection import InflectionTask
from fairseq_entmax.tasks.transduction import TransductionConfig, TransductionTask
from tests.tasks.test_inflection import Criterion, rows

LANGUAGES = ["<lang:ces>", "<lang:mon>"]


def dictionary(symbols):
    words = Dictionary()
    for symbol in symbols:
        words.add_symbol(symbol)
    return words


def make(symbols, **options):
    words = dictionary([*symbols, *LANGUAGES])
    task = TransductionTask(TransductionConfig(eval_transduction=True, **options), words, words)
    task.transduction_generator = None
    return task


def validate(task, triples, monkeypatch):
    """The values that one batch of (source, reference, answer) logs."""
    words = task.target_dictionary
    sources, references, given = zip(*triples)
    answers = [[{"tokens": row[row != words.pad()]}] for row in rows(words, given)]
    monkeypatch.setattr(task, "inference_step", lambda generator, models, sample: answers)
    sample = {"net_input": {"src_tokens": rows(words, sources)}, "target": rows(words, references)}
    with metrics.aggregate(new_root=True) as aggregated:
        log = {"_transduction_counts": task.count(sample, None)}
        task.reduce_metrics([log], Criterion())
    return aggregated.get_smoothed_values()


TRIPLES = [
    ("a <lang:ces>", "a @@ b", "a @@ b"),
    ("a <lang:ces>", "a @@ b @@ a", "a @@ a"),
    ("b <lang:mon>", "b", "b @@ b"),
]


def by_hand(triples):
    return rates(np.array([count(r.split(), a.split(), True) for _, r, a in triples]).sum(axis=0))


def test_every_metric_is_the_mean_over_languages(monkeypatch):
    values = validate(make(["a", "b", "@@"]), TRIPLES, monkeypatch)
    ces, mon = by_hand(TRIPLES[:2]), by_hand(TRIPLES[2:])
    for name in ("accuracy", "wer", "per", "cer", "levenshtein", "precision", "recall", "f1"):
        assert values[name] == pytest.approx(float(ces[name] + mon[name]) / 2, abs=0.006), name
    assert values["f1"] == pytest.approx((100 * 8 / 9 + 100 * 2 / 3) / 2, abs=0.006)
    assert not any(name.endswith("_ces") for name in values)


def test_each_language_on_request(monkeypatch):
    task = make(["a", "b", "@@"], eval_transduction_languages=True)
    values = validate(task, TRIPLES, monkeypatch)
    assert values["f1_mon"] == pytest.approx(66.67) and values["wer_ces"] == 50


def test_morphemes_need_borders(monkeypatch):
    values = validate(make(["a", "b"]), [("a <lang:ces>", "a b", "a")], monkeypatch)
    assert values["per"] == 50 and "f1" not in values


def test_an_unknown_symbol_of_a_reference_has_no_answer(monkeypatch):
    values = validate(make(["a"]), [("a <lang:ces>", "? a", "? a")], monkeypatch)
    assert values["accuracy"] == 0 and values["levenshtein"] == 1


def test_subwords_are_read_as_symbols(tmp_path, monkeypatch):
    items = [Item("ces", word, f"{word[:2]} @@{word[2:]}") for word in ("haus", "maus")] * 9
    spelling = Spelling.learn(FORMATS["segmentation"], items, 24)
    spelling.save(tmp_path)
    tokens = [spelling.target_tokens(item) for item in items[:2]]
    assert any(len(token) > 1 for token in tokens[0])
    task = make(sorted({t for line in tokens for t in line}), data=str(tmp_path))
    reference, answer = map(" ".join, tokens)
    values = validate(task, [("? <lang:ces>", reference, answer)], monkeypatch)
    assert values["per"] == 20 and values["f1"] == 50  # h a @@ u s


def test_inflection_is_a_case_of_it():
    assert issubclass(InflectionTask, TransductionTask)
    assert torch.is_tensor(make(["a"]).language_of_symbol)
