"""``fairseq-eval-lm``: stock's figures where nothing is impossible, else the truth."""

import logging
import math
import re
from argparse import Namespace

import pytest
import torch
from fairseq.models import FairseqDecoder, FairseqLanguageModel
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq_cli import eval_lm as command

from fairseq_entmax.compat.language_models import EPSILON, Evaluation
from tests.decoding.table_model import dictionary

WORDS = dictionary(["a", "b@@", "b", "c"])
STOCK = command.eval_lm


class Bigrams(FairseqDecoder):
    """p(next | last word), from a table (V, V)."""

    def __init__(self, table):
        super().__init__(WORDS)
        self.table = torch.nn.Parameter(table)

    def forward(self, prev_output_tokens, **kwargs):
        return self.table[prev_output_tokens], {}

    def get_normalized_probs(self, net_output, log_probs, sample=None):
        return net_output[0].log() if log_probs else net_output[0]


def table(dead=()):
    probs = torch.rand(len(WORDS), len(WORDS), generator=torch.Generator().manual_seed(1))
    for before, after in dead:
        probs[WORDS.index(before), WORDS.index(after)] = 0
    return probs / probs.sum(1, keepdim=True)


def batches(lines):
    for number, line in enumerate(lines):
        target = torch.tensor([[*map(WORDS.index, line.split()), WORDS.eos()]])
        before = torch.cat([torch.full((1, 1), WORDS.eos()), target[:, :-1]], 1)
        sample = {"src_tokens": before, "src_lengths": torch.tensor([target.size(1)])}
        yield {
            **{"id": torch.tensor([number]), "ntokens": target.numel(), "target": target},
            "net_input": sample,
        }


LINES = ["a b@@ c a", "c c b", "a"]


def evaluate(function, dead=(), lines=LINES, **options):
    model = FairseqLanguageModel(Bigrams(table(dead))).eval()
    return function([model], WORDS, batches(lines), target_dictionary=WORDS, **options)


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("post_process", [None, "@@ "])
def test_without_impossible_words_it_is_stocks(post_process, caplog):
    caplog.set_level(logging.INFO)
    options = {"post_process": post_process, "output_word_probs": True, "output_word_stats": True}
    expected = evaluate(STOCK, **options)
    before = [text for text in messages(caplog) if "Evaluated" not in text]
    caplog.clear()
    found = evaluate(Evaluation(command).run, **options)
    after = [text for text in messages(caplog) if "Evaluated" not in text]
    assert found["loss"] == pytest.approx(float(expected["loss"]))
    assert found["perplexity"] == pytest.approx(float(expected["perplexity"]))
    assert found["impossible"] == 0
    assert after[: len(LINES)] == before[: len(LINES)]  # word probabilities
    assert len(after) == len(before) + 1
    numbers = re.compile(r"-?\d+(?:\.\d+)?")
    for ours, stock in zip(after[len(LINES) + 1 :], before[len(LINES) :]):
        ours, stock = (list(map(float, numbers.findall(text))) for text in (ours, stock))
        assert ours == pytest.approx(stock, rel=1e-3)


def by_hand(dead, lines):
    """log p of every word, each with its words before it."""
    probs = table(dead).double()
    pairs = []
    for line in lines:
        words = ["</s>", *line.split(), "</s>"]
        pairs += [probs[WORDS.index(x), WORDS.index(y)] for x, y in zip(words, words[1:])]
    return torch.stack(pairs)


def test_impossible_words_are_counted(caplog):
    caplog.set_level(logging.INFO)
    dead = [("c", "c")]
    found = evaluate(Evaluation(command).run, dead, output_word_probs=True)
    probs = by_hand(dead, LINES)
    smoothed = (probs + EPSILON) / (1 + EPSILON * len(WORDS))
    assert found["perplexity"] == math.inf and found["loss"] == math.inf
    assert found["impossible"] == pytest.approx(1 / len(probs))
    expected = (-smoothed.log().mean()).exp().item()
    assert found["epsilon_perplexity"] == pytest.approx(expected)
    log = "\n".join(messages(caplog))
    assert f"({1} of {len(probs)}), epsilon-perplexity (1e-06): {expected:.2f}" in log
    words = re.search(r"^1 (.*)$", log, re.M).group(1).split("\t")
    assert [word.split()[0] for word in words] == ["c", "c", "b", "</s>"]
    values = [float(re.search(r"\[(.*)\]", word).group(1)) for word in words]
    assert values == pytest.approx(by_hand(dead, LINES[1:2]).log().tolist(), abs=1e-5)
    assert values[1] == -math.inf


def test_a_word_of_an_impossible_piece_is_impossible_once():
    dead = [("a", "b@@"), ("b@@", "c")]
    found = evaluate(Evaluation(command).run, dead, post_process="@@ ")
    assert found["impossible"] == pytest.approx(1 / 10)  # b@@ c is one word


def test_stock_leaves_it_out(caplog):
    caplog.set_level(logging.WARNING, command.logger.name)  # it would log a tuple without a %s
    found = evaluate(STOCK, [("c", "c")])
    assert float(found["perplexity"]) < 100, "fairseq has mended it: retire the repair"


def test_it_is_in_place_when_the_command_evaluates(monkeypatch):
    monkeypatch.setattr(command, "eval_lm", STOCK)
    task = LanguageModelingTask(Namespace(), WORDS, WORDS)
    monkeypatch.setattr(task, "get_batch_iterator", lambda **_: (_ for _ in ()).throw(KeyError))
    with pytest.raises(KeyError):
        task.eval_lm_dataloader([])
    assert isinstance(command.eval_lm.__self__, Evaluation)


def test_another_post_processing_is_refused():
    with pytest.raises(NotImplementedError, match="--post-process=letter is not implemented"):
        evaluate(Evaluation(command).run, post_process="letter")
