"""TorchScript compiles the generators that it compiles without this package, to the same search."""

import math

import pytest
import torch
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.search import DiverseBeamSearch
from fairseq.sequence_generator import EnsembleModel, SequenceGenerator

from tests.builders import Task, batch, build, scripted, sharpen

OPTIONS = {
    "plain": {},
    "ngrams": {"no_repeat_ngram_size": 2},
    "long ngrams": {"no_repeat_ngram_size": 3, "min_len": 6},
    "lengths": {"max_len_a": 1, "max_len_b": 3, "min_len": 2, "normalize_scores": False},
    "penalties": {"len_penalty": 0.5, "unk_penalty": 0.3, "temperature": 1.5},
    "match": {"match_source_len": True},
}


def models(n=1, arch="transformer_tiny", **flags):
    return [sharpen(build(arch, seed=seed, **flags)) for seed in range(3, 3 + n)]


def generator_of(built, **options):
    words = Task().target_dictionary
    return SequenceGenerator(built, words, **{"beam_size": 3, "max_len_b": 12, **options})


def sample():
    net_input = batch()["net_input"]
    return {"net_input": {key: net_input[key] for key in ("src_tokens", "src_lengths")}}


def answers(generator):
    return [
        [(h["tokens"].tolist(), h["score"].item()) for h in hypotheses]
        for hypotheses in generator(sample())
    ]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("n", [1, 2], ids=["one", "ensemble"])
def test_scripted_generator_answers_the_same(options, n):
    generator = generator_of(models(n), **options)
    expected, found = answers(generator), answers(scripted(generator))
    for hypotheses, others in zip(expected, found):
        assert [tokens for tokens, _ in hypotheses] == [tokens for tokens, _ in others]
        assert [s for _, s in hypotheses] == pytest.approx([s for _, s in others], rel=1e-5)


def test_scripted_diverse_beam_answers_the_same():
    search = DiverseBeamSearch(Task().target_dictionary, num_groups=2, diversity_strength=0.5)
    diverse = generator_of(models(), beam_size=4, search_strategy=search)
    expected, found = answers(diverse), answers(scripted(diverse))
    for hypotheses, others in zip(expected, found):
        assert [tokens for tokens, _ in hypotheses] == [tokens for tokens, _ in others]
        assert len({tuple(tokens) for tokens, _ in hypotheses}) > 1


def test_scripted_diverse_beam_finds_the_groups_of_sentences_that_go_on():
    def search():
        return DiverseBeamSearch(Task().target_dictionary, num_groups=2, diversity_strength=0.5)

    lprobs = torch.rand(3, 4, 9).log()
    scores = torch.zeros(3, 4, 2)
    numbers = torch.tensor([70, 30, 50])
    for one in (search(), scripted(search())):
        one.step(0, lprobs, scores, original_batch_idxs=numbers)
        left = one.step(1, lprobs[1:], scores[1:], original_batch_idxs=numbers[1:])
        alone = search()
        alone.step(0, lprobs[1:], scores[1:], original_batch_idxs=torch.arange(2))
        expected = alone.step(1, lprobs[1:], scores[1:], original_batch_idxs=torch.arange(2))
        assert all(torch.equal(a, b) for a, b in zip(left, expected))


def test_scripted_ensemble_model():
    scripted(EnsembleModel(models(2)))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "scripted"])
@pytest.mark.parametrize("n", [2, 3])
def test_ngrams_are_blocked_in_a_padded_buffer(n, compiled):
    block = NGramRepeatBlock(n, use_extension=False)
    if compiled:
        block = scripted(block)
    generator = torch.Generator().manual_seed(7)
    step, rows = 9, 4
    tokens = torch.full((rows, step + 5), 1)
    tokens[:, : step + 1] = torch.randint(4, 6, (rows, step + 1), generator=generator)
    lprobs = block(tokens.clone(), torch.zeros(rows, 8), 2, 2, step)
    blocked = 0
    for row in range(rows):
        written = tokens[row, : step + 1].tolist()
        seen = [tuple(written[i : i + n]) for i in range(len(written) - n + 1)]
        banned = {w for w in range(8) if (*written[-(n - 1) :], w) in seen}
        assert {w for w in range(8) if lprobs[row, w] == -math.inf} == banned
        blocked += len(banned)
    assert blocked


@pytest.mark.parametrize("wrong", ["tokens", "lprobs"])
def test_ngrams_of_another_batch_are_refused(wrong):
    rows = {"tokens": 4, "lprobs": 4, wrong: 3}
    with pytest.raises(AssertionError, match="expected 4 got 3"):
        NGramRepeatBlock(2, use_extension=False)(
            torch.ones(rows["tokens"], 5, dtype=torch.long), torch.zeros(rows["lprobs"], 8), 2, 2, 3
        )
