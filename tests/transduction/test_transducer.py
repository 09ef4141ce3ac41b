"""Answers and their proofs against enumeration of all strings."""

import pytest
import torch

from fairseq_entmax.data.inflection import DataError
from fairseq_entmax.data.transduction import FORMATS, Item
from fairseq_entmax.transduction import Answer, Transducer, folder
from fairseq_entmax.transduction.transducer import OPEN, PROVEN, UNIQUE

from .models import ITEMS, enumerate_answers, make


@pytest.fixture(scope="module", params=[1, 2], ids=["model", "ensemble"])
def transducer(request, tmp_path_factory):
    path = make(tmp_path_factory.mktemp("one"), models=request.param)
    return Transducer.load(path, cpu=True)


@torch.no_grad()
def test_a_wide_beam_finds_the_whole_distribution(transducer):
    verdicts = set()
    for item, answer in zip(ITEMS, transducer.answers(ITEMS)):
        expected = enumerate_answers(transducer, item, alpha=1.5)
        assert answer.complete
        assert dict(answer.candidates) == pytest.approx(expected, abs=2e-5)
        assert (answer.verdict == UNIQUE) == (len(expected) == 1)
        best = max(expected, key=expected.get)
        assert answer.text == best and answer.probability <= expected[best] + 1e-9
        verdicts.add(answer.verdict)
    assert verdicts <= {UNIQUE, PROVEN} and verdicts


@torch.no_grad()
def test_a_narrow_beam_proves_only_what_is_so(tmp_path):
    proven = 0
    path = make(tmp_path, alpha=1.2)
    narrow = Transducer.load(path, beam=2, cpu=True)
    for item, answer in zip(ITEMS, narrow.answers(ITEMS)):
        expected = enumerate_answers(narrow, item, alpha=1.2)
        if answer.verdict in (UNIQUE, PROVEN):
            assert expected[answer.text] == max(expected.values())
            assert answer.probability == pytest.approx(expected[answer.text], abs=2e-5)
            proven += 1
        if answer.verdict == UNIQUE:
            assert list(expected) == [answer.text]
    assert proven


def test_one_word(transducer):
    answer = transducer.answers(ITEMS)[2]
    assert transducer("cab", lang="x").text == transducer("cab").text == answer.text
    with pytest.raises(ValueError, match="know the languages x, got y"):
        transducer("cab", lang="y")
    with pytest.raises(ValueError, match="a word without characters"):
        transducer("")


def test_the_order_of_words_does_not_matter(transducer):
    there, back = transducer.answers(ITEMS), transducer.answers(ITEMS[::-1])[::-1]
    assert [a.text for a in there] == [a.text for a in back]
    assert [a.verdict for a in there] == [a.verdict for a in back]
    assert transducer.answers([]) == []


def test_unknown_characters_are_reported_and_copied(transducer):
    item = Item("x", "aZb")
    plain, copied = (transducer.answers([item], copy_unknown=c)[0] for c in (False, True))
    assert plain.unknown == copied.unknown == ["Z"]
    assert not plain.copied and "Z" not in plain.text
    assert copied.copied and copied.text.count("Z") == 1
    # the place is where the decoder looked most at Z, of the answer that was not copied into
    assert len(copied.text) == len(plain.text)
    assert not copied.is_given(0.0)
    assert transducer.answers([Item("x", "ab")], copy_unknown=True)[0].copied is False


def test_who_is_given():
    def answer(verdict, p, copied=False):
        return Answer("a", p, verdict, [("a", p)], False, [], ["a"], copied)

    assert answer(UNIQUE, 0.1).is_given(0.9)
    assert answer(PROVEN, 0.9).is_given(0.9) and not answer(PROVEN, 0.8).is_given(0.9)
    assert not answer(OPEN, 1.0).is_given(0.0)
    assert not answer(UNIQUE, 1.0, copied=True).is_given(0.0)


# ---- the folder


def test_a_folder_holds_no_optimizer_and_forgets_old_models(tmp_path):
    path = make(tmp_path, models=2)
    assert torch.load(str(path / "model-1.pt"))["last_optimizer_state"] is None
    assert len(folder.checkpoints_in(path)) == 2
    make(tmp_path, models=1)
    assert [p.name for p in folder.checkpoints_in(path)] == ["model-1.pt"]


def test_what_is_no_folder(tmp_path):
    with pytest.raises(DataError, match=r"transducer\.json: No such file .*run\.sh calls model"):
        Transducer.load(tmp_path, cpu=True)
    (tmp_path / "transducer.json").write_text('{"tusk": 1}', encoding="utf-8")
    with pytest.raises(DataError, match=r"transducer\.json: .*tusk"):
        folder.read_settings(tmp_path)
    with pytest.raises(DataError, match=r"no model-1\.pt"):
        folder.checkpoints_in(tmp_path)


def test_subwords_sum_what_is_written_twice():
    """Two ways to write a text are one candidate; what was dropped may be more of the second."""

    class Certificate:
        complete, exact, pruned = False, True, 0.25

    one = object.__new__(Transducer)
    one.spelling = type("Pieces", (), {"target_pieces": object()})
    assert one._verdict(Certificate, [("a", 0.5), ("b", 0.1)]) == PROVEN
    assert one._verdict(Certificate, [("a", 0.3), ("b", 0.1)]) == OPEN
    one.spelling = type("Symbols", (), {"target_pieces": None})
    assert one._verdict(Certificate, [("a", 0.3), ("b", 0.1)]) == PROVEN
    assert FORMATS["segmentation"].unit == "code-points"
