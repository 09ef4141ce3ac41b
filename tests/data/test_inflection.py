"""Columns and names of inflection files, as the shared tasks have had them."""

import os
import tarfile
from pathlib import Path

import pytest

from fairseq_entmax.data.inflection import (
    COVERED,
    FEATURES_FIRST,
    FORM_FIRST,
    Corpus,
    DataError,
    Entry,
    read,
    recognise,
)

PAIRS = [
    ("Haus", "Häuser", "N;NOM;PL"),
    ("NATO", "NATO", "N;NOM;SG"),
    ("gehen", "geht", "V"),
    ("ev", "evler", "N;NOM(PL)"),
    ("be", "was", "V.PTCP;1+3"),
]
ORIGINAL = [Entry("x", *pair) for pair in PAIRS]
# an archive of the files of all languages, where one lies beside the clone
SIGMORPHON = Path(__file__).resolve().parents[3] / "shared" / "data" / "sigmorphon2018.tar.xz"
SIGMORPHON = Path(os.environ.get("SIGMORPHON2018", str(SIGMORPHON)))


def put(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def swapped(rows=PAIRS):
    return [(lemma, features, form) for lemma, form, features in rows]


def covered(rows=PAIRS):
    return [(lemma, features) for lemma, _, features in rows]


# ---- columns


@pytest.mark.parametrize(
    ("rows", "columns"), [(PAIRS, FORM_FIRST), (swapped(), FEATURES_FIRST)], ids=["2018", "2023"]
)
def test_both_orders_are_the_same_entries(rows, columns, tmp_path):
    assert read(put(tmp_path / "f", rows), "x") == (columns, ORIGINAL)


def test_a_covered_file_has_no_forms(tmp_path):
    path = put(tmp_path / "f", covered())
    found = read(path, "x", covered=True)
    assert found == (COVERED, [entry._replace(form="") for entry in ORIGINAL])
    assert found.entries[0].target == "<unk>"
    assert found == read(path, "x", FEATURES_FIRST, covered=True)
    with pytest.raises(DataError, match=r"line 1: expected lemma, form and features .* 2 fields"):
        read(path, "x")


@pytest.mark.parametrize(
    "rows",
    [
        [("a", "b", "n"), ("c", "d", "")],  # small letters, none
        [("A", "B", "C"), ("D", "E", "F")],  # capitals alike
        [("NATO", "NATO", "n"), ("Haus", "Hauses", "n"), ("Tag", "Tag", "n")],  # one of three
        [],
    ],
)
def test_undecided_files_have_the_form_first(rows, tmp_path):
    assert recognise([list(row) for row in rows]) == (FORM_FIRST, False)
    entries = [Entry("x", *row) for row in rows]
    assert read(put(tmp_path / "f", rows), "x") == (FORM_FIRST, entries)


def test_a_line_of_the_other_order_is_refused(tmp_path):
    rows = [*swapped(), PAIRS[0], *swapped()]
    path = put(tmp_path / "f", rows)
    with pytest.raises(DataError) as error:
        read(path, "x")
    assert f"{path}, line 6: this looks like {FORM_FIRST}, most lines like {FEATURES_FIRST}" in str(
        error.value
    )
    entries = read(path, "x", FEATURES_FIRST).entries
    assert entries[5] == Entry("x", "Haus", "N;NOM;PL", "Häuser")  # as it was told to


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("Haus",), "line 6: expected lemma, features and form between tabs, got 1 fields"),
        (("a", "N;PL"), "line 6: expected lemma, features and form between tabs, got 2 fields"),
        (("a", "N;PL", ""), "line 6: a word without characters"),
        (("", "N;PL", "b"), "line 6: a word without characters"),
        (("a", "N;PL", "b", "c"), "got 4 fields"),
    ],
)
def test_bad_lines_among_good_ones(row, message, tmp_path):
    with pytest.raises(DataError) as error:
        read(put(tmp_path / "f", [*swapped(), row]), "x")
    assert message in str(error.value)


@pytest.mark.skipif(
    not SIGMORPHON.exists(), reason="needs the data of SIGMORPHON 2018: SIGMORPHON2018=FILE.tar.xz"
)
def test_all_languages_of_2018(tmp_path):
    """No file is taken for another order, none is taken for a mixed one; nor are they reversed."""
    with tarfile.open(str(SIGMORPHON)) as archive:
        members = [m for m in archive.getmembers() if m.name.endswith("-dev")]
        assert len(members) == 103
        for member in members:
            text = archive.extractfile(member).read().decode("utf-8")
            rows = [tuple(line.split("\t")) for line in text.splitlines()]
            expected = [Entry("x", *row) for row in rows]
            assert read(put(tmp_path / "f", rows), "x") == (FORM_FIRST, expected), member.name
            path = put(tmp_path / "f", swapped(rows))
            assert read(path, "x") == (FEATURES_FIRST, expected), member.name


# ---- names


def test_names_of_later_shared_tasks(tmp_path):
    put(tmp_path / "deu.trn", PAIRS)
    put(tmp_path / "deu.dev", swapped())
    put(tmp_path / "deu.tst", covered())
    put(tmp_path / "tur-train-medium", PAIRS[:1])
    put(tmp_path / "tur-dev", PAIRS[:2])
    put(tmp_path / "tur.dev", PAIRS)  # the first of both names
    corpus = Corpus(tmp_path)
    assert corpus.choose("all", "train-medium", "dev") == (["deu", "tur"], [])
    assert corpus.choose("all", "train-medium", "test") == (["deu"], [])
    assert len(corpus.require("deu", "train-medium")) == len(corpus.require("deu", "dev")) == 5
    assert [entry.form for entry in corpus.require("deu", "test")] == [""] * 5
    assert len(corpus.require("tur", "dev")) == 2 and corpus.read("tur", "test") == []
    assert corpus.taken == {
        FORM_FIRST: ["deu.trn", "tur-dev"],
        FEATURES_FIRST: ["deu.dev"],
        COVERED: ["deu.tst"],
    }
    with pytest.raises(DataError) as error:
        corpus.require("tur", "test")
    assert "files of this language: tur-dev, tur-train-medium, tur.dev" in str(error.value)
    assert "looked for tur-test, tur.tst, tur.test" in str(error.value)


def test_a_digest_is_of_the_content(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        for language in ("deu", "tur"):
            for part in ("trn", "dev"):
                put(folder / f"{language}.{part}", PAIRS)
    one, other = map(Corpus, folders)
    assert one.digest("all", "train-low") == other.digest("tur, deu", "train-low")
    put(folders[1] / "deu.dev", PAIRS[:4])
    assert one.digest("all", "train-low") != other.digest("all", "train-low")
    assert one.digest("tur", "train-low") == other.digest("tur", "train-low")
