"""``--task sparse_translation`` as its users run it."""

import json
import math
import re

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models import MODEL_REGISTRY

from fairseq_entmax.data.files import unfinished
from fairseq_entmax.decoding.report import SearchLog, search_tree, strings, summary, x_line
from tests.decoding.table_model import dictionary

from . import commands, corpus

TASK = [*commands.USER_DIR, "--cpu", "--task", "sparse_translation"]
EXACT = ["--search", "exact"]
FLAT = ["--temperature", 2]  # so that the beam does not hold everything
ALL = ["--beam", 5, "--nbest", 5]

OPTIONS = {
    "plain": ALL,
    "certified": [*ALL, "--certificates"],
    "unnormalized": [*ALL, *FLAT, "--unnormalized", "--certificates"],
    "exact": [*EXACT, *FLAT],
    "exact-nbest": [*EXACT, *FLAT, "--beam", 2, "--nbest", 20, "--min-len", 0],
    "exact-mass": [*EXACT, *FLAT, "--nbest", 1000, "--search-mass", 0.4],
    "exact-budget": [*EXACT, "--temperature", 4, "--beam", 1, "--max-expansions", 1],
    "exact-prefix": [*EXACT, *FLAT, "--prefix-size", 2, "--no-repeat-ngram-size", 2],
}
MODELS = [*commands.ARCHS, "mixed"]
MIXED_ONLY = ["exact-nbest", "exact-mass", "exact-budget", "exact-prefix"]
# name -> flags, and what the last line says
REFUSED = {
    "beam-0": ([*EXACT, "--beam", 0], "--beam must be at least 1, got 0"),
    "budget-0": ([*EXACT, "--max-expansions", 0], "--max-expansions .* at least 1, got 0"),
    "memory-0": ([*EXACT, "--max-search-memory", 0], "--max-search-memory .* at least 1"),
    "mass-2": ([*EXACT, "--search-mass", 2], "--search-mass must be in .*, got 2.0"),
    "mass-of-a-beam": (["--search-mass", 0.5], "--search-mass 0.5 needs --search exact or mbr"),
    "no-folder": (["--search-report", "/no/such/report.json"], "there is no folder /no/such"),
    "sampling": ([*EXACT, "--sampling", "--nbest", 5], "plain beam search: Sampling"),
    "diverse": (["--certificates", "--diverse-beam-groups", 5], "beam search: DiverseBeamSearch"),
    "alignment": ([*EXACT, "--print-alignment"], "--print-alignment needs --search beam"),
    "reference": ([*EXACT, "--score-reference"], "--score-reference searches nothing"),
}


@pytest.fixture(scope="module")
def finished(data, trained, tmp_path_factory):
    """``finished[name]`` of every command line of this module."""
    paths = {arch: str(trained(arch) / "checkpoint_last.pt") for arch in commands.ARCHS}
    paths["mixed"] = ":".join(paths.values())

    def job(model, *flags):
        return ["fairseq-generate", data, *TASK, "--path", paths[model], *flags]

    folder = tmp_path_factory.mktemp("searched")
    plan = [(model, name) for model in MODELS for name in OPTIONS]
    plan = [(m, name) for m, name in plan if m == "mixed" or name not in MIXED_ONLY]
    jobs = {f"{model} {name}": job(model, *OPTIONS[name]) for model, name in plan}
    jobs.update({name: job("lstm", *flags) for name, (flags, _) in REFUSED.items()})
    jobs["no-dictionary"] = ["fairseq-generate", folder, *TASK, "-s", "a", "-t", "b", *EXACT]
    jobs["no-dictionary"] += ["--path", paths["lstm"]]
    report, results = folder / "report.json", folder / "results"
    jobs["report"] = job("lstm", *ALL, "--search-report", report, "--results-path", results)
    jobs["report"] += ["--certificates", "--batch-size", 4]
    training = commands.train_args(data, folder / "model", *commands.ARCHS["transformer"])
    training += ["--task", "sparse_translation", "--max-update", 2, "--disable-validation"]
    jobs["train"] = ["fairseq-train", *training]
    jobs["train-eval-bleu"] = ["fairseq-train", *training, "--eval-bleu", *EXACT]
    done = commands.attempt_all(jobs, folder / "logs")
    return {"folder": folder, **done}


@pytest.fixture(scope="module")
def answers(finished):
    """Hypotheses and certificate of every sentence, for a model and an option."""

    def read(model, option):
        done = finished[f"{model} {option}"]
        assert done.code == 0, done.output[-3000:]
        return commands.parse_generation(done.output), x_lines(done.output)

    return read


def x_lines(output):
    found = {}
    for number, rest in re.findall(r"^X-(\d+)\t(.*)$", output, re.M):
        assert int(number) not in found
        found[int(number)] = dict(field.split("=") for field in rest.split("\t"))
    return found


def probability(hypothesis):
    return 2 ** sum(hypothesis.positional)


every_model = pytest.mark.parametrize("model", MODELS)


@pytest.mark.parametrize("file", ["report", "tree"])
def test_a_folder_is_no_file(tmp_path, file):
    paths = {"report": None, "tree": None, file: str(tmp_path)}
    with pytest.raises(ValueError, match="it is a folder, name a file in it"):
        SearchLog(False, paths["report"], paths["tree"], {}, None)


@every_model
def test_certificates_change_nothing_else(answers, model):
    plain, none = answers(model, "plain")
    certified, lines = answers(model, "certified")
    assert plain == certified and not none
    assert sorted(lines) == list(range(corpus.TEST))


@every_model
@pytest.mark.parametrize("option", ["certified", "unnormalized", "exact"])
def test_mass_is_that_of_the_list(answers, model, option):
    hypotheses, lines = answers(model, option)
    for i, line in lines.items():
        mass = sum(probability(h) for h in hypotheses[i])
        assert float(line["mass"]) == pytest.approx(mass, abs=2e-3)
        assert float(line["mass"]) + float(line["pruned"]) < 1 + 1e-4


@every_model
def test_exact_search_finds_at_least_what_the_beam_finds(answers, model):
    beam, certificates = answers(model, "unnormalized")
    exact, lines = answers(model, "exact")
    assert sorted(lines) == sorted(beam) == list(range(corpus.TEST))
    for i, (hypothesis,) in exact.items():
        assert lines[i]["exact"] == "1" and lines[i]["search"] == "exact"
        assert hypothesis.score >= beam[i][0].score - 1e-3
        assert hypothesis.score == pytest.approx(sum(hypothesis.positional), abs=1e-3)
        if certificates[i]["exact"] == "1":
            assert hypothesis.score == pytest.approx(beam[i][0].score, abs=1e-3)


def test_exact_n_best(answers):
    one, _ = answers("mixed", "exact")
    many, lines = answers("mixed", "exact-nbest")
    for i, hypotheses in many.items():
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({h.text for h in hypotheses}) == len(hypotheses) <= 20
        assert int(lines[i]["proven"]) == len(hypotheses)
        if hypotheses[0].tokens:  # the first allows no empty string
            assert scores[0] == pytest.approx(one[i][0].score, abs=1e-3)
        assert (float(lines[i]["empty"]) > 0) >= any(not h.tokens for h in hypotheses)
    assert max(map(len, many.values())) > 5, "the beam of 2 would do"


def test_enumeration_reaches_its_mass(answers):
    hypotheses, lines = answers("mixed", "exact-mass")
    for i, line in lines.items():
        assert float(line["mass"]) > 0.4 or line["complete"] == "1"
        assert sum(probability(h) for h in hypotheses[i][:-1]) < 0.4 + 1e-3


def test_a_budget_is_kept_and_admitted(answers):
    _, lines = answers("mixed", "exact-budget")
    assert "0" in {line["exact"] for line in lines.values()}
    for line in lines.values():
        assert line["proven"] == line["exact"]
        # of the greedy search, as far as it went, and one more
        assert int(line["expansions"]) <= 201 + 1


def test_prefix_and_ngram_block_under_exact_search(answers):
    hypotheses, lines = answers("mixed", "exact-prefix")
    plurals = [plural.split() for _, plural in corpus.noun_pairs()["test"]]
    for i, (hypothesis,) in hypotheses.items():
        assert hypothesis.tokens[:2] == plurals[i][:2] and lines[i]["exact"] == "1"


@pytest.mark.parametrize("name", list(REFUSED))
def test_bad_input_gives_one_clear_line(finished, name):
    done, (_, message) = finished[name], REFUSED[name]
    assert done.code != 0
    assert re.search(message, done.output.splitlines()[-1])


def test_missing_dictionary(finished):
    done = finished["no-dictionary"]
    assert done.code != 0 and "there is no dictionary" in done.output.splitlines()[-1]


def test_report_and_results_path(finished):
    assert finished["report"].code == 0, finished["report"].output[-3000:]
    folder = finished["folder"]
    results = (folder / "results" / "generate-test.txt").read_text(encoding="utf-8")
    assert len(commands.parse_generation(results)) == corpus.TEST
    lines = x_lines(finished["report"].output)
    report = json.loads((folder / "report.json").read_text())
    assert report["sentences"] == len(lines) == corpus.TEST
    assert (report["search"], report["beam"], report["nbest"]) == ("beam", 5, 5)
    for key in ("exact", "complete"):
        share = sum(line[key] == "1" for line in lines.values()) / len(lines)
        assert report[key] == pytest.approx(share)
    mass = sum(float(line["mass"]) for line in lines.values()) / len(lines)
    assert report["mass"] == pytest.approx(mass, abs=1e-5)
    assert report["empty"] is None


def test_training(finished):
    assert finished["train"].code == 0, finished["train"].output[-3000:]
    refused = finished["train-eval-bleu"]
    assert refused.code != 0 and "--eval-bleu-args" in refused.output.splitlines()[-1]


def test_hub_searches_with_a_trained_task(finished, data):
    model = (
        MODEL_REGISTRY["transformer_entmax"]
        .from_pretrained(
            str(finished["folder"] / "model"),
            "checkpoint_last.pt",
            data_name_or_path=str(data),
            search="exact",
            max_expansions=3,
        )
        .eval()
    )
    hypotheses = model.generate(model.encode("H u n d"), beam=2, nbest=3)
    assert hypotheses[0]["certificate"].search == "exact"


def test_summary_tree_and_interactive(data, trained, tmp_path):
    """In processes of their own: the summary and the tree are finished when Python ends."""
    path = ["--path", trained("lstm") / "checkpoint_last.pt", *TASK]
    tree = tmp_path / "tree.jsonl"
    printed = commands.run(
        *("fairseq-generate", data, *path, *EXACT, *FLAT, "--nbest", 3, "--search-tree", tree)
    )
    assert re.search(rf"^Search\tsentences={corpus.TEST}\texact=1\t", printed, re.M)
    answers = commands.parse_generation(printed)
    rows = [json.loads(line) for line in tree.read_text(encoding="utf-8").splitlines()]
    assert sorted(row["id"] for row in rows) == list(range(corpus.TEST))
    for row in rows:
        assert [s["text"] for s in row["strings"]] == [h.text for h in answers[row["id"]]]
        assert row["tree"]["mass"] == pytest.approx(row["certificate"]["mass"], abs=1e-5)

    # sentences are sorted by length within a buffer, and must keep their numbers
    words = ["K a t z e", "T a g", "B ü r o", "H a u s", "U h r"]
    printed = commands.run(
        *("fairseq-interactive", data, *path, *EXACT, *FLAT, "--buffer-size", 3),
        *("--batch-size", 2),
        stdin="".join(word + "\n" for word in words),
    )
    scores = {i: h[0].score for i, h in commands.parse_generation(printed).items()}
    lines = x_lines(printed)
    assert sorted(lines) == list(range(len(words)))
    for i, line in lines.items():
        assert float(line["mass"]) == pytest.approx(2 ** scores[i], abs=1e-4)


# --- the papers themselves -----------------------------------------------------------------------


def hypothesis(words, text, probs):
    tokens = torch.tensor([*(words.index(letter) for letter in text), words.eos()])
    scores = torch.tensor(probs).log()
    return {"tokens": tokens, "positional_scores": scores, "score": scores.sum()}


def test_tree_of_three_strings():
    words: Dictionary = dictionary("ab")
    found = [
        hypothesis(words, "ab", [0.8, 0.5, 1.0]),
        hypothesis(words, "aa", [0.8, 0.25, 1.0]),
        hypothesis(words, "", [0.2]),
        hypothesis(words, "b", [0.0, 1.0]),
    ]
    root = search_tree(found, words)
    assert root["mass"] == pytest.approx(0.8)
    assert [child["token"] for child in root["children"]] == ["a", "</s>"]
    a = root["children"][0]
    assert a["mass"] == pytest.approx(0.6) and a["log_prob"] == pytest.approx(math.log(0.8))
    assert [child["token"] for child in a["children"]] == ["b", "a"]
    assert [s["text"] for s in strings(found, words)] == ["a b", "a a", ""]
    json.dumps(root, allow_nan=False)


def test_a_broken_run_leaves_a_report_and_an_unfinished_tree(tmp_path):
    from tests.decoding.test_certificate import EOS, WORDS, search

    table = {(): {4: 0.5, EOS: 0.5}}
    (hypotheses,) = search(
        lambda s, p: table.get(p, {EOS: 1.0}), [4], beam=3, max_len_b=3, min_len=0
    )
    report, tree = tmp_path / "report.json", tmp_path / "tree.jsonl"
    log = SearchLog(False, str(report), str(tree), {"search": "beam"}, WORDS)
    log.add([7], [hypotheses])
    assert json.loads(report.read_text())["complete"] == 1
    assert not tree.exists() and json.loads(unfinished(tree).read_text())["id"] == 7
    log.finish()
    assert tree.exists() and not unfinished(tree).exists()


def test_x_line_and_summary_of_nothing():
    from fairseq_entmax.decoding import Certificate

    line = x_line(3, Certificate("beam", True, 2, False, 0.5, 0.25, math.log(0.25), 7, 1.5, None))
    assert line == (
        "X-3\tsearch=beam\texact=1\tproven=2\tcomplete=0\tmass=0.5\tpruned=0.25\tbound=-2\t"
        "expansions=7\tsupport=1.5\tempty=-"
    )
    assert summary([])["sentences"] == 0 and summary([])["empty"] is None
