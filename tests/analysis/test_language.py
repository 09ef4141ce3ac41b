"""What a language model predicts and writes, by hand and against fairseq's own sampling."""

import math
from argparse import Namespace

import pytest
import torch
from fairseq.search import Sampling
from fairseq.tasks.language_modeling import LanguageModelingTask
from torch.testing import assert_close

from fairseq_entmax.__main__ import main
from fairseq_entmax.analysis.language import (
    LanguageModel,
    Strategy,
    as_words,
    prediction_columns,
    text_figures,
)
from fairseq_entmax.functional import reference
from tests.builders import Task, build, dictionary, sharpen

WORDS = dictionary()
STRATEGIES = ["full", "greedy", "nucleus=0.7", "topk=3", "temperature=0.5"]


def scores():
    return 2 * torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(2))


def drawn_from(text):
    z = scores()
    return Strategy.read(text).probs(lambda t: reference.entmax(z / t, 1.0).float()), z


@pytest.mark.parametrize("text", STRATEGIES)
def test_probabilities_sum_to_one(text):
    probs, _ = drawn_from(text)
    assert_close(probs.sum(-1), torch.ones(2, 6))


def test_truncations_keep_what_fairseq_keeps():
    probs, z = drawn_from("nucleus=0.7")
    sampling = Sampling(WORDS, sampling_topp=0.7)
    kept, places = sampling._sample_topp(z.log_softmax(-1))
    expected = torch.zeros_like(z).scatter_(-1, places, kept)
    assert_close(probs, expected / expected.sum(-1, keepdim=True))
    probs, z = drawn_from("topk=3")
    top = z.softmax(-1).topk(3)
    expected = torch.zeros_like(z).scatter_(-1, top.indices, top.values)
    assert_close(probs, expected / expected.sum(-1, keepdim=True))
    assert (drawn_from("greedy")[0].argmax(-1) == z.argmax(-1)).all()


@pytest.mark.parametrize(
    "text",
    ["", "nucleus", "nucleus=0", "nucleus=1.5", "topk=2.5", "full=1", "temperature=x", "top=3"],
)
def test_a_strategy_of_another_form(text):
    with pytest.raises(ValueError, match="expected full, greedy"):
        Strategy.read(text)


def opened(alpha):
    """A tiny language model without a checkpoint."""
    task = LanguageModelingTask(Namespace(add_bos_token=False), WORDS, WORDS)
    found = LanguageModel.__new__(LanguageModel)
    flags = {"max_target_positions": 64, "decoder_layers": 1, "decoder_embed_dim": 16}
    flags.update(decoder_attention_heads=2, output_alpha=alpha, tokens_per_sample=64)
    tiny = build("transformer_lm_entmax", task=_of_words(), **flags)
    found.model, found.task, found.words, found.cuda = sharpen(tiny), task, WORDS, False
    return found


def _of_words():
    task = Task()
    task.dictionary = task.output_dictionary = task.source_dictionary
    return task


def batch():
    target = torch.randint(4, len(WORDS), (3, 9), generator=torch.Generator().manual_seed(4))
    target[2, 6:] = WORDS.pad()
    before = torch.cat([torch.full((3, 1), WORDS.eos()), target[:, :-1]], 1)
    return {"net_input": {"src_tokens": before}, "target": target}


@pytest.mark.parametrize("alpha", [1.0, 1.5])
@pytest.mark.parametrize("text", ["full", "greedy", "topk=4"])
def test_predictions_by_hand(alpha, text, monkeypatch):
    model, sample = opened(alpha), batch()
    monkeypatch.setattr(model, "_batches", lambda subset: [sample])
    found = model.predictions("test", Strategy.read(text), epsilon=1e-3, window=3, seed=1)
    with torch.no_grad():
        z = model.model(**sample["net_input"])[0].double()
    counted = sample["target"] != WORDS.pad()
    probs = Strategy.read(text).probs(lambda t: reference.entmax(z / t, alpha))[counted]
    gold = sample["target"][counted]
    assert found["ppl_eps"] == pytest.approx(
        reference.epsilon_perplexity(probs, gold, 1e-3).item(), rel=1e-4
    )
    assert found["js"] == pytest.approx(
        reference.js_divergence(probs, gold).mean().item(), abs=1e-5
    )
    assert found["sparsemax_score"] == pytest.approx(
        reference.sparsemax_score(probs, gold).mean().item(), abs=1e-5
    )
    assert found["support"] == pytest.approx((probs > 0).sum(1).double().mean().item())
    assert 0 <= found["wrep"] <= found["rep"] <= 1
    if text == "greedy":
        chosen, repeated, wrong = z.argmax(-1), 0, 0
        for row, t in counted.nonzero().tolist():
            seen = sample["net_input"]["src_tokens"][row, max(0, t - 2) : t + 1].tolist()
            repeated += chosen[row, t].item() in seen
            wrong += chosen[row, t].item() in seen and chosen[row, t] != sample["target"][row, t]
        assert found["rep"] == pytest.approx(repeated / len(gold))
        assert found["wrep"] == pytest.approx(wrong / len(gold))


def test_columns_do_not_mix_rows():
    probs = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    columns = prediction_columns(probs, torch.tensor([2, 2]), 0.0)
    assert columns["nll_eps"].tolist() == [math.inf, 0.0]
    assert columns["support"].tolist() == [2, 1] and columns["gold_in_support"].tolist() == [0, 1]


@pytest.mark.parametrize("text", STRATEGIES)
def test_what_is_written_is_possible(text):
    model, strategy = opened(1.5), Strategy.read(text)
    passages = [[5, 6, 7, 8], [9, 9, 9, 4]]
    texts = model.write(passages, given=2, length=6, strategy=strategy, seed=3)
    assert len(texts) == 2 and all(len(text) <= 6 for text in texts) and any(texts)
    for passage, written in zip(passages, texts):
        tokens = [*passage[:2], *map(WORDS.index, written)]
        before = torch.tensor([[WORDS.eos(), *tokens[:-1]]])
        with torch.no_grad():
            z = model.model(before)[0]
        # the generator never writes padding
        kept = torch.arange(len(WORDS)) != WORDS.pad()
        probs = strategy.probs(lambda t, z=z, k=kept: reference.entmax(z / t, 1.5) * k)[0]
        chosen = probs.gather(1, torch.tensor(tokens)[:, None])[2:, 0]
        assert (chosen > 0).all()
    assert texts == model.write(passages, given=2, length=6, strategy=strategy, seed=3)


def test_figures_of_texts_by_hand():
    texts = [["a", "b", "a", "b"], ["a", "b"]]
    found = text_figures(texts)
    assert found["length"] == 3 and found["distinct_1"] == 2 / 6
    assert found["distinct_2"] == 2 / 4 and found["distinct_3"] == 2 / 2
    assert text_figures([["a", "b", "c", "d"]] * 2)["self_bleu"] == pytest.approx(100)
    assert text_figures([["a", "b", "c", "d"], ["e", "f", "g", "h"]])["self_bleu"] < 20
    assert text_figures([["a"]])["self_bleu"] == 0


def test_words_of_characters():
    assert as_words(list("a▁bc⏎d"), "▁⏎") == ["a", "bc", "d"]
    assert as_words(["a", "▁"], "") == ["a", "▁"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "x=no.pt"], "there is no checkpoint no.pt"),
        (["--model", "no.pt"], "expected NAME=CHECKPOINT[:CHECKPOINT...], got 'no.pt'"),
        (["--model", "x=no.pt", "--passages", "0"], "must be a whole number, at least 1, got '0'"),
        (["--model", "x=no.pt", "--sampling", "top=3"], "expected full, greedy"),
    ],
)
def test_bad_input_is_said(options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["generation", "nowhere", *options])
    assert ended.value.code == 2 and message in capsys.readouterr().err
