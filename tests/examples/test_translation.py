"""run.sh from raw text to BLEU, its recipes in YAML, its parts, and the sweep over it."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
import sacrebleu
import torch
from fairseq import options
from omegaconf import OmegaConf

from tests.cli import corpus

from .scripts import REPO, load

FOLDER = REPO / "examples" / "translation"
RECIPES = sorted(path.stem for path in (FOLDER / "recipes").glob("*.args"))

average = load("examples/translation/average.py")
collect = load("examples/translation/collect.py")
score = load("examples/translation/score.py")
hydra_recipes = load("scripts/hydra_recipes.py")
sweep = load("scripts/sweep_alpha.py")

PAIRS = corpus.sentence_pairs()


def write_corpus(folder):
    folder.mkdir()
    for name, pairs in (("train", PAIRS * 3), ("val", PAIRS[:4]), ("t", PAIRS[:5])):
        for language, side in zip(("de", "en"), zip(*pairs)):
            text = "".join(line + "\n" for line in side)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")


def run_sh(*arguments, cwd=REPO, script="run.sh"):
    bin_folder = os.path.dirname(sys.executable)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    environment["PATH"] = f"{bin_folder}:{environment['PATH']}"
    return subprocess.run(
        ["bash", str(FOLDER / script), *map(str, arguments)],
        cwd=str(cwd),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


# ---- from text to BLEU


def test_from_raw_text_to_bleu(tmp_path):
    """Relative paths, a vocabulary too large for the text, and a training that learns it."""
    write_corpus(tmp_path / "data")
    tiny = "--encoder-layers 1 --decoder-layers 1 --dropout 0 --attention-dropout 0 --lr 0.003"
    command = [
        *("--data", "data", "--src", "de", "--tgt", "en", "--test", "t", "--out", "out"),
        *("--output-alpha", 1.5, "--attention-alpha", 1.5, "--", *tiny.split()),
        *("--max-update", 120, "--disable-validation"),
    ]
    done = run_sh(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    last = done.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"translation: bleu=([\d.]+) chrf=([\d.]+) support=([\d.]+) lines=5 signature=(\S+)", last
    )
    assert found, last
    answers = (tmp_path / "out/test/t/beam5/hypotheses").read_text(encoding="utf-8").splitlines()
    references = [english for _, english in PAIRS[:5]]
    bleu = sacrebleu.corpus_bleu(answers, [references]).score
    assert float(found.group(1)) == pytest.approx(bleu, abs=0.01)
    assert bleu > 50  # it has seen these sentences
    assert 1 <= float(found.group(3)) < 5
    assert found.group(4).startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    result = json.loads((tmp_path / "out/test/t/beam5/result.json").read_text())
    tokens = [word for line in references for word in line.replace(".", " .").split()]
    known = {word for _, line in PAIRS for word in line.replace(".", " .").split()}
    assert 5 < result["words"] <= len(known)
    words = result["reference_words"]
    assert sum(words[band] for band in ("<50", "50-199", "200+")) == len(tokens)
    assert words["0"] == 0 and 0.5 < result["recall"]["<50"] <= 1
    assert result["empty"] == 0 and result["gold_in_support"] > 0.9

    state = torch.load(str(tmp_path / "out" / "averaged.pt"), map_location="cpu")
    assert 0 < state["extra_state"]["previous_training_time"] < 900
    assert result["words_per_second"] > 0
    experiment = (tmp_path / "out" / "experiment.txt").read_text().strip()
    assert experiment.startswith("run.sh --src de --tgt en --recipe transformer --output-alpha 1.5")
    assert experiment.endswith(f"--seed 1 -- {tiny} --max-update 120 --disable-validation")

    # the schedule follows the length that was given behind --
    trained = (tmp_path / "out" / "trained").read_text().split()
    last_of = {flag: value for flag, value in zip(trained, trained[1:]) if flag[:2] == "--"}
    assert last_of["--max-update"] == last_of["--total-num-update"] == "120"
    assert last_of["--warmup-updates"] == "12"

    failed = run_sh(*command, "--no-such-flag", cwd=tmp_path)
    assert failed.returncode != 0
    assert "unrecognized arguments: --no-such-flag" in failed.stdout
    assert "fairseq-train failed, the whole log is out/train.log" in failed.stdout.splitlines()[-1]

    other = run_sh(*command[:8], "--out", "out", "--output-alpha", 2, cwd=tmp_path)
    assert other.returncode != 0
    assert "holds a run with output-alpha=1.5, now output-alpha is 2" in other.stdout


GIVEN = ("--data", "d", "--src", "de", "--tgt", "en", "--test", "t", "--out", "o")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (GIVEN[2:], "--data is missing"),
        (GIVEN[:-1], "--out needs a value"),
        ((*GIVEN, "--max-tokens", "5"), "unknown option --max-tokens"),
        ((*GIVEN, "--tgt", "de"), "--src and --tgt are both de"),
        ((*GIVEN, "--recipe", "rnn"), "--recipe rnn: no such recipe, there are: lstm.args"),
        ((*GIVEN, "--beam", "many"), "--beam must be a whole number, got many"),
        ((*GIVEN, "--beam", "0"), "--beam must be at least 1, got 0"),
        ((*GIVEN, "--average", "00"), "--average must be at least 1, got 0"),
        ((*GIVEN, "--output-alpha", "0.5"), "--output-alpha must be a number >= 1"),
        ((*GIVEN, "--attention-alpha", "nan"), "--attention-alpha must be a number >= 1"),
        ((*GIVEN, "--label-smoothing", "1"), "--label-smoothing must be a number in [0, 1), got 1"),
        ((*GIVEN, "--", "--max-update=x"), "--max-update must be a whole number, got x"),
        ((*GIVEN, "--", "--max-update", "x"), "--max-update must be a whole number, got x"),
        (GIVEN, "d: no such folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments(arguments, message, tmp_path):
    done = run_sh(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stdout.splitlines()[-1]
    assert len(done.stdout.splitlines()) == 1 and not (tmp_path / "o").exists()


def test_the_script_of_a_corpus(tmp_path):
    """It lays out the corpus and hands its options, then those given, to run.sh."""
    write_corpus(tmp_path / "raw")
    for language in ("de", "en"):
        (tmp_path / "raw" / f"t.{language}").rename(
            tmp_path / "raw" / f"test_2016_flickr.{language}"
        )
    given = (tmp_path / "raw", "de", "en", tmp_path / "out")
    done = run_sh(*given, "--beam", "0", script="multi30k.sh")
    assert done.stdout.splitlines() == [
        f"train: {3 * len(PAIRS)} pairs",
        "valid: 4 pairs",
        "test: 5 pairs",
        "run.sh: --beam must be at least 1, got 0",
    ]
    assert len((tmp_path / "out" / "data" / "test.en").read_text().splitlines()) == 5
    missing = run_sh(*given, script="kftt.sh")
    assert missing.returncode == 1 and "kyoto-train.de: No such file" in missing.stdout
    assert run_sh("raw", "de", script="iwslt.sh").returncode == 2


def test_leading_zeros_are_no_other_setting(tmp_path):
    (tmp_path / "d").mkdir()
    module = load("examples/translation/run.py")
    given = ("--data", str(tmp_path / "d"), *GIVEN[2:])
    flags = ["--", "--max-update=010", "--x"]
    options, rest = module.read_options([*given, "--seed", "08", "--beam", "07", *flags])
    assert (options["seed"], options["beam"], options["max-update"]) == ("8", "7", "10")
    assert rest == flags[1:]


def test_a_python_without_fairseq():
    folder = str(FOLDER / "run.sh")
    environment = {**os.environ, "PYTHON": "/bin/false"}
    done = subprocess.run(["bash", folder, *GIVEN], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.startswith("run.sh: no torch, fairseq, sacrebleu and sentencepiece in /bin/")
    assert len(done.stderr.splitlines()) == 1


def test_help_names_every_option():
    shown = run_sh("--help").stdout
    for option in load("examples/translation/run.py").DEFAULTS:
        assert f"--{option} " in shown


# ---- recipes


def recipe_flags(name):
    lines = (FOLDER / "recipes" / f"{name}.args").read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in shlex.split(line)]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_the_same_in_yaml(name):
    parser = options.get_training_parser("translation")
    common = "--criterion entmax_loss --optimizer adam --adam-betas (0.9,0.98)".split()
    schedule = ["--lr-scheduler", "polynomial_decay"]
    flags = recipe_flags(name)
    args = vars(options.parse_args_and_arch(parser, ["data", *common, *schedule, *flags]))
    groups = OmegaConf.to_container(OmegaConf.load(str(FOLDER / "hydra" / f"{name}.yaml")))
    assert groups["model"].pop("_name") == args["arch"]
    named = {flag[2:].replace("-", "_") for flag in flags if flag[:2] == "--"} - {"arch"}
    written = {key: value for group in groups.values() for key, value in group.items()}
    assert named <= set(written)
    assert set(groups["model"]) <= named | {"output_alpha", "attention_alpha"}
    for key in named | {"adam_betas", "output_alpha", "attention_alpha", "label_smoothing"}:
        assert written[key] == args[key], key
    assert groups["lr_scheduler"]["total_num_update"] == groups["optimization"]["max_update"]


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_is_what_the_script_writes(name):
    found = (FOLDER / "hydra" / f"{name}.yaml").read_text(encoding="utf-8")
    assert found == hydra_recipes.recipe(name) + "\n", "python scripts/hydra_recipes.py renews it"


@pytest.mark.parametrize("corpus_script", ["iwslt", "wmt16_roen", "kftt", "multi30k"])
def test_yaml_has_the_length_of_the_corpus(corpus_script):
    text = (FOLDER / f"{corpus_script}.sh").read_text(encoding="utf-8")
    given = dict(re.findall(r"--([a-z-]+) (\w+)", text))
    name = f"{given.get('recipe', 'transformer')}.yaml"
    groups = OmegaConf.to_container(OmegaConf.load(str(FOLDER / "hydra" / name)))
    assert groups["optimization"]["max_update"] == int(given["max-update"])
    assert groups["checkpoint"]["keep_interval_updates"] == int(given.get("average", 5))


def test_flags_find_their_groups():
    flags = "--arch a --no-save --lr 0.1 --dropout 0.1 --weight-decay 1e-4 --dropout 0.2 --share-x"
    groups = hydra_recipes.grouped(flags.split())
    given = {group: values for group, values in groups.items() if values}
    assert given == {
        "common": {"user_dir": "???"},
        "task": {"_name": "translation", "data": "???"},
        "model": {"_name": "a", "dropout": "0.2", "share_x": "true"},
        "optimization": {"lr": "[0.1]"},
        "checkpoint": {"no_save": "true"},
        "optimizer": {"weight_decay": "1e-4"},
    }


# ---- averaging


def save(path, weight, count=1):
    model = {"w": torch.tensor(weight), "n": torch.tensor(count)}
    torch.save({"model": model, "cfg": None, "last_optimizer_state": {"big": 1}}, str(path))


def test_average_of_the_last(tmp_path):
    for updates, weight in ((9, [9.0, 9.0]), (100, [1.0, 3.0]), (110, [2.0, 5.0])):
        save(tmp_path / f"checkpoint_1_{updates}.pt", weight, updates)
    save(tmp_path / "checkpoint_last.pt", [50.0, 50.0])
    save(tmp_path / "checkpoint_best.pt", [50.0, 50.0])
    paths = average.last_checkpoints(tmp_path, 2)
    assert [path.name for path in paths] == ["checkpoint_1_100.pt", "checkpoint_1_110.pt"]
    mean = average.average(paths)
    assert mean["model"]["w"].tolist() == [1.5, 4.0]
    assert mean["model"]["w"].dtype == torch.float32
    assert mean["model"]["n"] == 110
    assert "last_optimizer_state" not in mean


def test_average_without_numbered_checkpoints(tmp_path):
    with pytest.raises(SystemExit, match="no checkpoint to average"):
        average.last_checkpoints(tmp_path, 5)
    save(tmp_path / "checkpoint_last.pt", [1.0])
    assert average.last_checkpoints(tmp_path, 5) == [tmp_path / "checkpoint_last.pt"]


def test_average_of_different_models(tmp_path):
    save(tmp_path / "checkpoint_1_1.pt", [1.0])
    torch.save({"model": {"v": torch.ones(1)}}, str(tmp_path / "checkpoint_1_2.pt"))
    with pytest.raises(SystemExit, match="another model"):
        average.average(average.last_checkpoints(tmp_path, 2))


# ---- scores


def test_scores_count_empty_answers():
    references = ["a b c d e", "f g h i j", "k"]
    found = score.scores(["a b c d e", "", "k"], references, "13a")
    assert found["empty"] == 1 and found["lines"] == 3
    assert found["bleu"] == sacrebleu.corpus_bleu(["a b c d e", "", "k"], [references]).score
    with pytest.raises(SystemExit, match="2 answers to 3 lines"):
        score.scores(["a", "b"], references, "13a")


def test_recall_by_hand():
    """Matches are clipped in each sentence: 1 "rare" of 3 is found, though it is answered twice."""
    trained = {"the": 300, "a": 200, "cat": 199, "dog": 10, "rare": 7, "once": 1}
    references = ["the rare rare cat", "a rare new once", "dog"]
    answers = ["the the the rare", "once a new dog dog", "once dog rare"]
    found = score.recall_by_count(answers, references, trained)
    assert found["reference_words"] == {
        **{"0": 1, "1-4": 1, "5-9": 3, "10-49": 1, "50-199": 1, "200+": 2, "<10": 5, "<50": 6},
    }
    assert found["recall"] == {
        **{"0": 1, "1-4": 1, "5-9": 1 / 3, "10-49": 1, "50-199": 0, "200+": 1},
        **{"<10": 3 / 5, "<50": 4 / 6},
    }


@pytest.mark.parametrize(
    ("count", "band"),
    [
        *((0, "0"), (1, "1-4"), (4, "1-4"), (5, "5-9"), (9, "5-9"), (10, "10-49"), (49, "10-49")),
        *((50, "50-199"), (199, "50-199"), (200, "200+"), (10**6, "200+")),
    ],
)
def test_every_count_has_its_band(count, band):
    recall = score.recall_by_count(["x"], ["x x"], {"x": count})["recall"]
    bands = {name for name, value in recall.items() if value is not None}
    assert bands == {band, *["<10"] * (count < 10), *["<50"] * (count < 50)}
    assert recall[band] == 0.5


def test_words_are_those_of_the_tokeniser(tmp_path):
    (tmp_path / "raw").write_text("A dog, a cat.\nThe dog.\n", encoding="utf-8")
    tokenize = sacrebleu.metrics.BLEU(tokenize="13a").tokenizer
    found = score.word_choice(["A dog."], ["The dog, too!"], tmp_path / "raw", tokenize)
    assert found["words"] == 3  # A, dog and the full stop
    assert found["reference_words"]["1-4"] == 3 and found["recall"]["1-4"] == 1 / 3
    assert found["reference_words"]["0"] == 2 and found["recall"]["0"] == 0


def test_speed_is_the_median_of_a_log(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("".join(f"| train_inner | 1 loss=2, wps={x}, ups=3\n" for x in (0, 5, 900, 7)))
    assert score.words_per_second(log) == 7
    log.write_text("nothing was trained\n")
    assert math.isnan(score.words_per_second(log))


# ---- the page of results


UNIGRAM = " --label-smoothing-prior unigram --learn-attention-alpha --attention-temperature 1"
UNIGRAM_MODEL = "LSTM, unigram smoothing 0.01, attention temperature 1, learned alphas"


def finished_run(folder, alphas, more, *beams):
    """What run.sh leaves behind, BLEU = beam + 30."""
    command = "run.sh --src de --tgt en --recipe {} --output-alpha {} --attention-alpha {}"
    folder.mkdir()
    (folder / "experiment.txt").write_text(f"{command.format(*alphas)} {more}\n")
    state = {"args": None, "cfg": None, "model": {}, "extra_state": {"previous_training_time": 90}}
    torch.save(state, str(folder / "averaged.pt"))
    for beam in beams:
        found = {"bleu": 30 + beam, "chrf": 55.5, "support": 2.25, "gold_in_support": 0.875}
        found.update(lines=5, empty=1, signature="nrefs:1", words_per_second=700.4)
        if beam == 5:  # with the words in a run that was scored since
            found.update(words=123, recall={"0": None, "<10": 0.125, "<50": None})
        (folder / "test" / "t" / f"beam{beam}").mkdir(parents=True)
        (folder / "test" / "t" / f"beam{beam}" / "result.json").write_text(json.dumps(found))
    return folder


def collected(monkeypatch, into, *outs):
    arguments = ["collect.py", "--corpus", "c", "--hardware", "a core", "--into", into, *outs]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    collect.main()
    return json.loads((into / "results.json").read_text()), (into / "RESULTS.md").read_text()


def test_runs_are_added_to_the_page(tmp_path, monkeypatch):
    more = "--max-update 9 --label-smoothing {} --seed {} -- --amp{}"
    outs = [
        finished_run(tmp_path / "1", ("transformer", 1.5, 1.5), more.format(0, 1, ""), 5, 50),
        finished_run(
            tmp_path / "2",
            ("lstm", 1.5, 1),
            more.format(0.01, 2, UNIGRAM),
            5,
        ),
        finished_run(
            tmp_path / "3",
            ("transformer", 1, 1),
            "--max-update 10 --seed 1 -- --finetune-from-model /home/me/softmax/averaged.pt --fp16",
            5,
        ),
    ]
    (tmp_path / "RESULTS.md").write_text("above\n<!-- tables -->\n<!-- end of tables -->\nbelow\n")
    collected(monkeypatch, tmp_path, outs[0])
    results, page = collected(monkeypatch, tmp_path, *outs)
    assert [(row["beam"], row["bleu"]) for row in results] == [(5, 35), (50, 80), (5, 35), (5, 35)]
    assert {row["hardware"] for row in results} == {"a core"}
    assert page.startswith("above\n") and page.endswith("\nbelow\n")
    sections = page.split("## c de-en, t\n")[1:]
    assert len(sections) == 2  # one for each length of training
    same = next(section for section in sections if "`--max-update 9 -- --amp`" in section)
    figures = "55.50 | {} | 2.2 | 87.5% | 1 | 700 | 2 min"
    scored_before = " |  | "  # words and their recall were not counted
    for start, words, seed in (
        ("| transformer | 1.5 | 1.5 | 5 | 35.00", "123 | 12.5% | ", 1),
        ("| transformer | 1.5 | 1.5 | 50 | 80.00", scored_before, 1),
        (f"| {UNIGRAM_MODEL} | 1.5 | 1 | 5 | 35.00", "123 | 12.5% | ", 2),
    ):
        assert f"{start} | {figures.format(words)} | {seed} |" in same
    assert (tmp_path / "1" / "experiment.txt").read_text() in same
    assert "--finetune-from-model softmax/averaged.pt --fp16\n" in page
    assert "/home" not in page


@pytest.mark.parametrize(("left", "message"), [("experiment.txt", "no result"), ("", "no exp")])
def test_unfinished_runs_are_not_added(tmp_path, monkeypatch, left, message):
    if left:
        (tmp_path / left).touch()
    with pytest.raises(SystemExit, match=message):
        collected(monkeypatch, tmp_path, tmp_path)


# ---- the sweep


@pytest.fixture
def fake_runs(monkeypatch):
    """Stands for run.sh: BLEU is 10 x output alpha + seed."""
    calls = []

    def run(command):
        given = dict(zip(command[2::2], command[3::2]))
        calls.append(given)
        if given["--output-alpha"] == "3":
            return SimpleNamespace(returncode=1)
        bleu = 10 * float(given["--output-alpha"]) + int(given["--seed"])
        found = {"bleu": bleu, "chrf": 1, "support": 2, "gold_in_support": 1, "empty": 0}
        found["words_per_second"] = 7
        out = sweep.Path(given["--out"])
        (out / "test/t/beam5").mkdir(parents=True)
        (out / "test/t/beam5/result.json").write_text(json.dumps(found))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(sweep.subprocess, "run", run)
    return calls


def run_sweep(monkeypatch, tmp_path, *more):
    given = ["--data", tmp_path, "--src", "de", "--tgt", "en", "--test", "x/t"]
    arguments = ["sweep", *given, "--out", tmp_path / "out", *more]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    sweep.main()


def test_sweep_makes_one_table_and_goes_on(monkeypatch, tmp_path, fake_runs):
    grid = ("--output-alphas", 1, 1.5, "--attention-alphas", 2, "--seeds", 1)
    run_sweep(monkeypatch, tmp_path, *grid, "--", "--vocab", "9", "--", "--dropout", "0")
    assert [call["--output-alpha"] for call in fake_runs] == ["1", "1.5"]
    assert fake_runs[0]["--attention-alpha"] == "2" and fake_runs[0]["--vocab"] == "9"
    assert fake_runs[0]["--"] == "--dropout"
    options = ("--", "--vocab", "9", "--", "--dropout", "0")
    run_sweep(monkeypatch, tmp_path, *grid, 3, *options)
    assert len(fake_runs) == 4  # the second seed only
    rows = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [(row["output_alpha"], row["seed"], row["bleu"]) for row in rows] == [
        *((1, 1, 11), (1.5, 1, 16), (1, 3, 13), (1.5, 3, 18)),
    ]
    assert all(row["words_per_second"] == 7 for row in rows)
    table = (tmp_path / "out" / "sweep.md").read_text().splitlines()
    assert table[2].startswith(f"| 1 | 2 | 2 | 12.00 +- {math.sqrt(2):.2f} | 1.00 +- 0.00 |")
    with pytest.raises(SystemExit, match="holds a sweep with the options"):
        run_sweep(monkeypatch, tmp_path, *grid, "--", "--vocab", "10")


def test_sweep_stops_at_a_failure_and_keeps_the_rest(monkeypatch, tmp_path, fake_runs):
    grid = ("--output-alphas", 1, 3, 2, "--attention-alphas", 1)
    with pytest.raises(SystemExit, match="output3-attention1-seed1 failed"):
        run_sweep(monkeypatch, tmp_path, *grid)
    rows = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [row["output_alpha"] for row in rows] == [1]
