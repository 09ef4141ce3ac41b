"""Numbers behind curves: mappings, sweeps, training curves, counts, segmentation."""

import json
import math

import pytest

from fairseq_entmax.analysis.mappings import check_alphas, entropies, mappings
from fairseq_entmax.analysis.segmentation import joined, segmenter
from fairseq_entmax.analysis.supports import Counts, by_position, histogram
from fairseq_entmax.analysis.sweeps import figures_of, read_sweep, read_training_curves, spreads
from tests.decoding.table_model import dictionary


def test_mapping_in_closed_form():
    curves = mappings([1.0, 2.0])
    for t, p in curves[1.0]:
        assert p == pytest.approx(1 / (1 + math.exp(-t)), abs=1e-6)
    for t, p in curves[2.0]:
        assert p == pytest.approx(min(1, max(0, (t + 1) / 2)), abs=1e-6)


def test_entropies_in_closed_form():
    curves = entropies([1.0, 2.0])
    for p, h in curves[2.0]:
        assert h == pytest.approx(p * (1 - p), abs=1e-9)  # half the Gini index
    assert curves[1.0][100][1] == pytest.approx(math.log(2))


@pytest.mark.parametrize("alpha", [0.9, math.inf, math.nan])
def test_no_alpha(alpha):
    with pytest.raises(ValueError, match="an alpha is a number >= 1"):
        check_alphas([1.5, alpha])


def rows():
    return [
        {"output_alpha": o, "attention_alpha": 1.5, "seed": s, "bleu": o + s, "name": "x"}
        for o in (1.0, 2.0)
        for s in (1, 3)
    ]


def test_spread_over_seeds(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps(rows()))
    found = read_sweep(tmp_path)
    assert figures_of(found) == ["bleu"]
    (line,) = spreads(found, "bleu").values()
    assert line == [(1.0, 3.0, 2.0, 4.0, 2), (2.0, 4.0, 3.0, 5.0, 2)]
    with pytest.raises(ValueError, match="no 'chrf', but bleu"):
        spreads(found, "chrf")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"bleu": 1}]'])
def test_files_of_other_kinds_are_refused(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_text(content)
    for read in (read_sweep, read_training_curves):
        with pytest.raises(ValueError, match=r"file\.json"):
            read(path)


def test_training_curves(tmp_path):
    path = tmp_path / "curves.json"
    row = {"case": "sparsemax, 20 updates", "peer": "softmax", "curve": [{"cpu_s": 1}]}
    path.write_text(json.dumps([{**row, "peer_curve": [{"cpu_s": 2}]}]))
    curves = read_training_curves(path)
    assert list(curves.items()) == [("softmax", [{"cpu_s": 2}]), ("sparsemax", [{"cpu_s": 1}])]


def test_means_by_position():
    counts = [Counts([2, 4], [1, 1]), Counts([4], [3])]
    assert by_position(counts, least=1) == [(1, 3.0, 2.0, 2), (2, 4.0, 1.0, 1)]
    assert len(by_position(counts, least=2)) == 1
    with pytest.raises(ValueError, match="no strings"):
        by_position([])


def test_histogram_sums_to_1():
    assert histogram([3, 1, 3, 3]) == {1: 0.25, 3: 0.75}


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("a b <N>", ["a", "b", "<N>"]),
        ("ab <N>", ["a", "b", "<N>"]),  # letters are known, the word is not
        ("ab x", ["a", "b", "x"]),
        ("xyz", ["xyz"]),  # nothing of it is known
    ],
)
def test_raw_text_is_cut_as_the_data_were(tmp_path, text, symbols):
    words = dictionary("ab")
    words.add_symbol("<N>")
    assert segmenter(tmp_path, words)(text) == symbols


def test_a_sentencepiece_model_beside_the_data_is_used(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    lines = ["ein Haus", "ein Hund", "zwei Hunde"] * 3
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=16,
        minloglevel=2,
    )
    (tmp_path / "bin").mkdir()
    pieces = segmenter(tmp_path / "bin", dictionary("ab"))("ein Hund")
    assert joined(pieces) == "ein Hund" and pieces[0].startswith("\u2581")
    with pytest.raises(ValueError, match="no sentencepiece model"):
        segmenter(tmp_path, dictionary("ab"), "missing.model")
