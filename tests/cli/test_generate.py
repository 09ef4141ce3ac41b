"""Every search option of fairseq-generate on sparse models, where fairseq's own search dies."""

import math

import pytest
import torch

from . import commands, corpus

BEAM = 5
ALL = ["--nbest", BEAM]
FLAT = [*ALL, "--temperature", 5]  # so that many strings live, and options have a choice
LONG = [*FLAT, "--min-len", 14, "--max-len-b", 20]  # too long to say nothing twice

# name -> flags; every run answers all sentences, what else holds is below
OPTIONS = {
    "beam-1": ["--beam", 1],
    "beam-5": ALL,
    "beam-10": ["--beam", 10, "--nbest", 10],
    "nbest": ["--nbest", 3],
    "small-batches": ["--batch-size", 3],
    "fewer-than-8": ["--gen-subset", "test1"],
    "score-reference": ["--score-reference"],
    "wrong-reference": ["--gen-subset", "test2", "--score-reference"],
    "alignment-hard": ["--print-alignment", *ALL],
    "alignment-soft": ["--print-alignment", "soft", *ALL],
    "alignment-alone": ["--print-alignment", "soft", "--batch-size", 1, *ALL],
    "sacrebleu": ["--scoring", "sacrebleu"],
    "max-len": ["--max-len-a", 0, "--max-len-b", 4, *FLAT],
    "min-len": ["--min-len", 8, *FLAT],
    "prefix": ["--prefix-size", 2, *FLAT],
    "wrong-prefix": ["--gen-subset", "test2", "--prefix-size", 2, *ALL],
    "no-repeat-ngram": ["--no-repeat-ngram-size", 2, *LONG],
    "long": LONG,
    "sampling": ["--sampling", *FLAT],
    "sampling-topk": ["--sampling", "--sampling-topk", 3, *FLAT],
    "sampling-topp": ["--sampling", "--sampling-topp", 0.8, *FLAT],
    "sampling-dead-ends": ["--sampling", "--min-len", 8, *ALL],
    "diverse-beam": ["--diverse-beam-groups", BEAM, *FLAT],
    "diversity-rate": ["--diversity-rate", 0.5, *FLAT],
    "match-source-len": ["--match-source-len", *FLAT],
    "no-length-penalty": ["--lenpen", 0, *ALL],
    "long-length-penalty": ["--lenpen", 2, *ALL],
    "unnormalized": ["--unnormalized", *ALL],
    "temperature": FLAT,
}
SUBSETS = {"fewer-than-8": "test1", "wrong-reference": "test2", "wrong-prefix": "test2"}
NBEST = {"beam-10": 10, "nbest": 3}

every_option = pytest.mark.parametrize("option", list(OPTIONS))
every_arch = pytest.mark.parametrize("arch", list(commands.ARCHS))


@pytest.fixture(scope="module")
def paths(trained, tmp_path_factory):
    """What --path takes: each arch, ensembles, and the average of two checkpoints."""
    one = {arch: str(trained(arch) / "checkpoint_last.pt") for arch in commands.ARCHS}
    averaged = tmp_path_factory.mktemp("averaged") / "averaged.pt"
    average(one["transformer"], str(trained("transformer") / "checkpoint_37_182.pt"), averaged)
    return {
        **one,
        "twins": f"{one['transformer']}:{one['transformer']}",
        "mixed": f"{one['transformer']}:{one['lstm']}",
        "averaged": str(averaged),
    }


def average(path, other, to):
    """As fairseq's scripts/average_checkpoints.py, which its wheels lack."""
    state, second = map(torch.load, (path, other))
    moved = 0.0
    for name, value in state["model"].items():
        mean = (value + second["model"][name]) / 2
        moved += (mean - value).abs().sum()
        state["model"][name] = mean.to(value)
    assert moved > 0
    torch.save(state, str(to))


@pytest.fixture(scope="module")
def generate(data, paths, tmp_path_factory):
    """``generate(model, option)``: what fairseq-generate printed; it must have succeeded."""
    plan = [(arch, option) for arch in commands.ARCHS for option in OPTIONS]
    plan += [(model, "beam-5") for model in paths if model not in commands.ARCHS]
    jobs = {
        f"{model} {option}": [
            *("fairseq-generate", data, *commands.USER_DIR, "--path", paths[model], "--cpu"),
            *("--task", "translation", "--beam", BEAM, *OPTIONS[option]),
        ]
        for model, option in plan
    }
    finished = commands.attempt_all(jobs, tmp_path_factory.mktemp("generated"))

    def printed(model, option):
        done = finished[f"{model} {option}"]
        assert done.code == 0, done.output[-3000:]
        return done.output

    return printed


@pytest.fixture(scope="module")
def answers(generate):
    return lambda model, option: commands.parse_generation(generate(model, option))


def found(answers):
    """(sentence, hypothesis), without those that stand for 'no string with p > 0'."""
    return [(i, h) for i, hypos in answers.items() for h in hypos if h.score > -math.inf]


def texts(answers):
    return {i: [h.text for h in hypotheses] for i, hypotheses in answers.items()}


def first_letters(side, count=None, subset="test"):
    return [pair[side].split()[:count] for pair in corpus.noun_pairs()[subset]]


@every_arch
@every_option
def test_every_sentence_is_answered(answers, arch, option):
    result = answers(arch, option)
    sentences = corpus.noun_pairs()[SUBSETS.get(option, "test")]
    assert sorted(result) == list(range(len(sentences)))
    most = NBEST.get(option, BEAM if "--nbest" in OPTIONS[option] else 1)
    for hypotheses in result.values():
        assert 1 <= len(hypotheses) <= most
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert not any(math.isnan(score) for score in scores)
        # only a sentence without any string of p > 0 has a hypothesis of p = 0, and just one
        assert len(scores) == 1 or scores[-1] > -math.inf


@every_arch
@every_option
def test_scores_are_those_of_the_tokens(answers, arch, option):
    power = {"unnormalized": 0, "no-length-penalty": 0, "long-length-penalty": 2}.get(option, 1)
    for _, h in found(answers(arch, option)):
        if "--sampling" not in OPTIONS[option]:  # it may draw <s>, which is not printed
            assert len(h.positional) == len(h.tokens) + 1
        expected = sum(h.positional) / len(h.positional) ** power
        assert h.score == pytest.approx(expected, abs=1e-3)


@every_arch
def test_sparse_models_run_out_of_strings(answers, arch):
    n_strings = [len(hypotheses) for hypotheses in answers(arch, "beam-10").values()]
    assert sum(text in hypos for text, hypos in expected_texts(answers(arch, "beam-10"))) > 5
    if min(n_strings) >= 10 and arch == "transformer":
        # how dense 200 updates leave it depends on the processor's rounding; the LSTM is sparser
        pytest.skip("the transformer trained here is too dense to test what dies in fairseq")
    assert min(n_strings) < 10


def expected_texts(answers):
    plurals = [plural for _, plural in corpus.noun_pairs()["test"]]
    return [(plurals[i], hypotheses) for i, hypotheses in texts(answers).items()]


@every_arch
def test_beam_10_holds_no_string_twice(answers, arch):
    for hypotheses in texts(answers(arch, "beam-10")).values():
        assert len(hypotheses) == len(set(hypotheses))


@every_arch
def test_nbest_is_a_prefix_of_the_beam(answers, arch):
    beam, nbest = texts(answers(arch, "beam-5")), texts(answers(arch, "nbest"))
    assert nbest == {i: hypotheses[:3] for i, hypotheses in beam.items()}


@every_arch
def test_batches_do_not_change_the_answer(answers, arch):
    best = {i: h[:1] for i, h in texts(answers(arch, "beam-5")).items()}
    assert texts(answers(arch, "small-batches")) == best
    assert texts(answers(arch, "sacrebleu")) == best


@every_arch
def test_reference_is_scored_as_it_is_generated(answers, arch):
    references = answers(arch, "score-reference")
    plurals = {i: [" ".join(p)] for i, p in enumerate(first_letters(side=1))}
    assert texts(references) == plurals
    same = 0
    for i, hypotheses in answers(arch, "beam-5").items():
        if hypotheses[0].text == plurals[i][0]:
            same += 1
            assert references[i][0].score == pytest.approx(hypotheses[0].score, abs=1e-3)
    assert same > corpus.TEST // 2


@every_arch
def test_reference_outside_the_support_scores_minus_infinity(answers, arch):
    scores = [hypotheses[0].score for hypotheses in answers(arch, "wrong-reference").values()]
    assert scores.count(-math.inf) > corpus.TEST // 2


@every_arch
def test_alignment_names_source_positions(answers, arch):
    sources = first_letters(side=0)
    for i, h in found(answers(arch, "alignment-hard")):
        pairs = [tuple(map(int, pair.split("-"))) for pair in h.alignment.split()]
        assert [target for _, target in pairs] == list(range(len(h.tokens)))
        assert all(0 <= source <= len(sources[i]) for source, _ in pairs)


def test_soft_alignment_has_exact_zeros(answers):
    zeros = 0
    for _, h in found(answers("transformer", "alignment-soft")):
        for row in h.alignment.split():
            weights = [float(weight) for weight in row.split(",")]
            assert sum(weights) == pytest.approx(1, abs=1e-4)
            zeros += weights.count(0)
    assert zeros > 0


LSTM_SHIFTS = "fairseq's LSTM counts source positions without the padding before them"


@pytest.mark.parametrize(
    "arch",
    ["transformer", pytest.param("lstm", marks=pytest.mark.xfail(strict=True, reason=LSTM_SHIFTS))],
)
def test_padding_does_not_move_the_alignment(answers, arch):
    def first_weights(option):
        """Sentence -> the weights of the first letter of its best answer."""
        rows = {i: h[0].alignment.split() for i, h in sorted(answers(arch, option).items())}
        return {i: [float(weight) for weight in row[0].split(",")] for i, row in rows.items()}

    batched, alone = first_weights("alignment-soft"), first_weights("alignment-alone")
    for i in batched:
        assert batched[i] == pytest.approx(alone[i], abs=1e-3)


def test_sacrebleu_scores(generate):
    assert "Generate test with beam=5: BLEU = " in generate("transformer", "sacrebleu")
    assert "Generate test with beam=5: BLEU4 = " in generate("transformer", "beam-5")


@every_arch
def test_lengths(answers, arch):
    free = [len(h.tokens) for _, h in found(answers(arch, "temperature"))]
    assert min(free) < 8 and max(free) > 4, "no option would have anything to do"
    short, long = found(answers(arch, "max-len")), found(answers(arch, "min-len"))
    assert short and all(len(h.tokens) <= 4 for _, h in short)
    assert long and all(len(h.tokens) >= 8 for _, h in long)


@every_arch
def test_match_source_len(answers, arch):
    # fairseq counts the source's EOS, but not the target's
    room = [len(letters) + 1 for letters in first_letters(side=0)]
    assert any(len(h.tokens) > room[i] for i, h in found(answers(arch, "temperature")))
    matched = found(answers(arch, "match-source-len"))
    assert matched and all(len(h.tokens) <= room[i] for i, h in matched)


@every_arch
def test_prefix(answers, arch):
    prefixes = first_letters(side=1, count=2)
    assert any(h.tokens[:2] != prefixes[i] for i, h in found(answers(arch, "temperature")))
    forced = found(answers(arch, "prefix"))
    assert forced and all(h.tokens[:2] == prefixes[i] for i, h in forced)


@every_arch
def test_prefix_outside_the_support(answers, arch):
    result = answers(arch, "wrong-prefix")
    scores = [hypotheses[0].score for hypotheses in result.values()]
    assert scores.count(-math.inf) > corpus.TEST // 2
    prefixes = first_letters(side=1, count=2, subset="test2")
    assert all(h.tokens[:2] == prefixes[i] for i, h in found(result))


@every_arch
def test_no_repeat_ngram(answers, arch):
    def repeats(option):
        bigrams = [list(zip(h.tokens, h.tokens[1:])) for _, h in found(answers(arch, option))]
        return [each for each in bigrams if len(set(each)) < len(each)]

    assert repeats("long")
    assert not repeats("no-repeat-ngram") and found(answers(arch, "no-repeat-ngram"))


@every_arch
@pytest.mark.parametrize("option", ["sampling", "sampling-topk", "sampling-topp"])
def test_samples_vary_within_the_support(answers, arch, option):
    samples = found(answers(arch, option))
    assert len({h.text for _, h in samples}) > corpus.TEST
    assert samples != found(answers(arch, "temperature"))


@every_arch
def test_samples_without_continuation(answers, arch):
    result = answers(arch, "sampling-dead-ends")
    assert -math.inf in [hypotheses[0].score for hypotheses in result.values()]
    assert all(len(h.positional) >= 9 for _, h in found(result))


@every_arch
@pytest.mark.parametrize("option", ["diverse-beam", "diversity-rate"])
def test_diverse_beam_changes_the_answers(answers, arch, option):
    assert texts(answers(arch, option)) != texts(answers(arch, "temperature"))


def test_ensemble_of_twins_is_the_model(answers):
    assert texts(answers("twins", "beam-5")) == texts(answers("transformer", "beam-5"))


def test_ensemble_of_lstm_and_transformer(answers):
    result = answers("mixed", "beam-5")
    assert sorted(result) == list(range(corpus.TEST))
    right = sum(plural in hypotheses for plural, hypotheses in expected_texts(result))
    assert right > corpus.TEST // 2


def test_average_of_checkpoints(answers):
    result = answers("averaged", "beam-5")
    assert sorted(result) == list(range(corpus.TEST))
    right = sum(plural in hypotheses for plural, hypotheses in expected_texts(result))
    assert right > corpus.TEST // 2
    assert result != answers("transformer", "beam-5")
