"""The benchmark refuses wrong results, and says what it measured in the form promised."""

import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import corpus, decoding, harness, peaked, recipes, stored  # noqa: E402
from benchmarks.words import WordsTask, made_up_words  # noqa: E402

FIELDS = {"bench", "case", "peer", "ratio", "ours_s", "peer_s", "ours_peak_mb", "peer_peak_mb"}


def case(error=0.0, ours=lambda: None, theirs=lambda: None):
    return harness.Case("bench", "case", "peer", ours, theirs, lambda: error, 1e-6)


@pytest.mark.parametrize("error", [2e-6, float("nan")])
def test_a_wrong_result_is_not_timed(error):
    timed = []
    with pytest.raises(SystemExit, match="a wrong result is not timed"):
        harness.run(case(error, ours=lambda: timed.append(1)), runs=3)
    assert not timed


def test_the_pair_takes_turns():
    order = []
    row = harness.run(case(ours=lambda: order.append("o"), theirs=lambda: order.append("p")), 3)
    assert "".join(order) == "op" + "op" * row["runs"]  # once for the memory
    assert row["runs"] >= 3 and set(row) >= FIELDS


def test_ratio_and_memory_are_ours_over_the_peers():
    def burn(seconds, megabytes):
        held = torch.ones(megabytes * 250_000)
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return held

    # above 32 MB the allocator asks for memory of its own each time
    row = harness.run(case(0.0, lambda: burn(0.02, 50), lambda: burn(0.08, 100)), 3)
    assert row["ratio"] == pytest.approx(0.25, rel=0.5)
    assert row["ours_peak_mb"] == pytest.approx(50, abs=10)
    assert row["peer_peak_mb"] == pytest.approx(100, abs=10)


def test_command_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "scripts/benchmark.py", "loss", "--quick", "--json", tmp_path / "b.json"],
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    rows = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert [row["case"].split()[-1] for row in rows] == ["trained", "N(0,1)", "mid", "near-uniform"]
    for row in rows:
        assert set(row) >= FIELDS
        assert row["ratio"] == pytest.approx(row["ours_s"] / row["peer_s"])
        assert row["machine"]["torch"] == torch.__version__
        assert f"| {row['case']} | {row['peer']} | {row['ratio']:.2f} |" in done.stdout


def test_made_up_corpus_has_the_shape_of_the_real_one(monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "LINES", {"train": 3000, "val": 20, "test_2016_flickr": 7})
    binary = corpus.prepare(tmp_path / "corpus", 2000, None)
    lines = (tmp_path / "corpus" / "train.de").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3000
    assert 11 < sum(len(line.split()) for line in lines) / len(lines) < 15
    words = (binary / "dict.de.txt").read_text(encoding="utf-8").splitlines()
    assert 1900 < len(words) <= 2000
    assert (binary / "test.de-en.de.bin").exists()


@pytest.mark.parametrize("archived", [False, True])
def test_a_corpus_that_is_given(archived, monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "LINES", {"train": 3, "val": 1, "test_2016_flickr": 1})
    source = tmp_path / "multi30k"
    source.mkdir()
    for split in corpus.LINES:
        for side in ("de", "en"):
            (source / f"{split}.{side}").write_text(f"{side}: a\u2028dog, too.\n" * 5)
    if archived:
        with tarfile.open(str(tmp_path / "a.tar.xz"), "w:xz") as archive:
            archive.add(str(source), "multi30k")
        source = tmp_path / "a.tar.xz"
    corpus.prepare(tmp_path / "out", 100, source)
    assert (tmp_path / "out" / "train.en").read_text() == "en : a dog , too .\n" * 3


def test_a_corpus_that_is_not_whole(tmp_path):
    (tmp_path / "train.de").write_text("a\n")
    with pytest.raises(SystemExit, match=r"no train\.en of Multi30k to be read: .*No such file"):
        corpus.prepare(tmp_path / "out", 100, tmp_path)
    with pytest.raises(SystemExit, match=r"no train\.de of Multi30k to be read: .*not be opened"):
        corpus.prepare(tmp_path / "out", 100, tmp_path / "train.de")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "nowhere"], "--data nowhere: no such file or folder"),
        (["loss", "--data", "."], "--data is for train, not for loss"),
    ],
)
def test_data_that_cannot_be_used(arguments, message, monkeypatch, capsys):
    import benchmark

    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_losses_are_read_from_whole_log_lines():
    line = '2026 | INFO | train_inner | {"epoch": 1, "loss": "6.5", "ups": "0"}\n'
    assert recipes.logged_losses("noise\n" + line + line[:-5]) == [6.5]


def untrained(words=500, d=64):
    """A stand-in for a model: random features and weights."""
    decoder = SimpleNamespace(
        layer_norm=torch.nn.LayerNorm(d), output_projection=torch.nn.Linear(d, words, bias=False)
    )
    x = torch.randn(1, 300, d, generator=torch.Generator().manual_seed(0))

    class Model:
        eval = staticmethod(lambda: None)

        def __call__(self, features_only):
            return decoder.layer_norm(x), None

    model = Model()
    model.decoder = decoder
    return model


@pytest.mark.parametrize("support", [13, 200])
def test_weights_are_given_a_support_and_another_is_refused(support):
    model = untrained()
    peaked.set_support(model, {}, support)
    peaked.check_support(model, {}, support, "case")
    with pytest.raises(SystemExit, match=f"a mean support of {support} where 50 was to be timed"):
        peaked.check_support(model, {}, 50, "case")


def test_decoding_is_timed_on_sentences_of_one_length():
    words = made_up_words(200)
    task, pairs = WordsTask(words), decoding.sentence_batch(3, words)
    model = decoding.iwslt("transformer_entmax_iwslt_de_en", task)
    on, off = (decoding.search(model, task, pairs, step) for step in ("auto", "off"))
    assert {len(h[0]["tokens"]) for h in on()} == {decoding.LENGTH + 1}
    assert decoding.differing(on, off)() < 1e-5
    other = decoding.search(decoding.iwslt("transformer_iwslt_de_en", task), task, pairs)
    assert decoding.differing(on, other)() > 1e-5


def results(**ratios):
    stamp = {"commit": "abc", "date": "2026-12-01", **dict.fromkeys(stored.ALIKE, "x")}
    return [
        {"bench": "b", "case": case, "peer": "p", "ratio": ratio, "machine": stamp}
        for case, ratio in ratios.items()
    ]


def test_what_has_moved_is_named(tmp_path):
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(results(same=1.0, slow=1.0, fast=1.0)))
    lines = list(stored.report(results(same=1.3, slow=1.4, fast=0.7, more=1), stored.read(earlier)))
    assert lines == [
        "\nAgainst abc of 2026-12-01 on x, x:",
        "slower: b: slow / p 1.00 -> 1.40",
        "faster: b: fast / p 1.00 -> 0.70",
        "new: b: more / p 1.00",
        "2 of 4 moved by more than a third",
    ]


def test_stored_results_of_another_machine_are_told_apart():
    here = results(case=1.0)
    here[0]["machine"] = {**here[0]["machine"], "cpu": "y"}
    assert "another cpu: expect other ratios" in stored.report(here, results(case=1.0))


@pytest.mark.parametrize("text", ["", "{}", '[{"bench": "b"}]'])
def test_stored_results_that_cannot_be_read(text, tmp_path):
    (tmp_path / "stored.json").write_text(text)
    with pytest.raises(SystemExit, match="not the results of a benchmark"):
        stored.read(tmp_path / "stored.json")
