"""Readers of transduction files: every line is read, checked, and written back as it was."""

import os
import tarfile
from pathlib import Path

import pytest

from fairseq_entmax.data.alphabet import morphemes, single_characters, to_symbols, to_text
from fairseq_entmax.data.collection import Collection
from fairseq_entmax.data.inflection import DataError
from fairseq_entmax.data.spelling import Spelling
from fairseq_entmax.data.subwords import Subwords
from fairseq_entmax.data.transduction import (
    FORMATS,
    Duplicates,
    Format,
    Item,
    duplicates,
    format_of,
    read,
)

SHARED = Path(os.environ.get("TRANSDUCTION_DATA", ""))
SHARED = SHARED if str(SHARED) != "." else Path(__file__).resolve().parents[3] / "shared" / "data"


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


# ---- symbols


@pytest.mark.parametrize(
    ("text", "kind", "unit", "symbols"),
    [
        ("Haus", "characters", "code-points", ["H", "a", "u", "s"]),
        ("a b\u00a0", "characters", "code-points", ["a", "▁", "b", "▁A0"]),
        ("e\u0301a", "characters", "clusters", ["e\u0301", "a"]),
        ("각하", "characters", "clusters", ["각", "하"]),
        ("각", "characters", "decomposed", ["\u1100", "\u1161", "\u11a8"]),
        ("a \u0301b", "characters", "clusters", ["a", "▁", "\u0301", "b"]),
        ("t͡s aː x", "symbols", "decomposed", ["t͡s", "aː", "x"]),
        ("ab @@solv", "morphemes", "code-points", ["a", "b", "@@", "s", "o", "l", "v"]),
        ("a @@ @@b", "morphemes", "code-points", ["a", "@@", "@@", "b"]),
        ("a  @@b", "morphemes", "code-points", ["a", "▁", "@@", "b"]),
        ("@@x", "morphemes", "code-points", ["@", "@", "x"]),
    ],
)
def test_symbols_and_back(text, kind, unit, symbols):
    assert to_symbols(text, kind, unit) == symbols
    assert to_text(symbols, kind, unit) == text


@pytest.mark.parametrize(
    ("text", "kind", "unit", "message"),
    [
        ("", "characters", "code-points", "a word without characters"),
        ("", "morphemes", "code-points", "a word without characters"),
        ("", "symbols", "code-points", "an empty symbol"),
        ("a  b", "symbols", "code-points", "an empty symbol"),
        ("a <pad>", "symbols", "code-points", "<pad>, which has another meaning"),
        ("a <N>", "symbols", "code-points", "<N>, which has another meaning"),
        ("a\u00a0b c", "symbols", "code-points", "white space inside"),
        ("a▁", "morphemes", "code-points", "U\\+2581"),
        ("e\u0301", "characters", "decomposed", "written back as its NFC"),
    ],
)
def test_what_has_no_symbols(text, kind, unit, message):
    with pytest.raises(ValueError, match=message):
        to_symbols(text, kind, unit)


def test_blanks_are_borders_of_morphemes():
    """The 2022 evaluation takes `` @@`` and then every blank for a border."""
    for text in ("ab @@c", "a  @@b", "a b @@c", "ab", "a @@ @@b"):
        expected = text.replace(" @@", "|").replace(" ", "|").split("|")
        assert morphemes(to_symbols(text, "morphemes")) == expected


def test_characters_of_symbols():
    assert single_characters(["t͡s", "@@", "▁A0", "a"]) == [*"t͡s", "@@", "▁A0", "a"]


# ---- files


def test_columns_and_what_may_be_absent(tmp_path):
    two = put(tmp_path / "two", "abc\ta @@bc\n\nx\tx\r\n")
    three = put(tmp_path / "three", "abc\ta @@bc\t100\nx\tx\t\n")
    style = FORMATS["segmentation"]
    assert read(two, "ces", style).items == [Item("ces", "abc", "a @@bc"), Item("ces", "x", "x")]
    found = read(three, "mon", style)
    assert found.items == [Item("mon", "abc", "a @@bc", "", "100"), Item("mon", "x", "x")]
    assert "".join(line + "\n" for line in found.lines()) == three.read_text(encoding="utf-8")


def test_a_covered_file_has_no_targets(tmp_path):
    path = put(tmp_path / "ady_test.txt", "ab\ncd\n")
    found = read(path, "ady", FORMATS["g2p"], covered=True)
    assert found.items == [Item("ady", "ab"), Item("ady", "cd")]
    assert FORMATS["g2p"].target_symbols(found.items[0]) == ["<unk>"]
    with pytest.raises(DataError, match="line 1: expected source, target between tabs, got 1"):
        read(path, "ady", FORMATS["g2p"])


def test_features_of_2016(tmp_path):
    lines = "Haus\tpos=N,case=DAT,num=PL\tHäusern\nev\tpos=N\tev\n"
    found = read(put(tmp_path / "f", lines), "x", FORMATS["inflection"])
    assert found.columns == ("source", "features", "target")
    assert found.items[0] == Item("x", "Haus", "Häusern", "pos=N,case=DAT,num=PL")
    symbols = FORMATS["inflection"].source_symbols(found.items[0])
    assert symbols[4:] == ["<lang:x>", "<pos=N>", "<case=DAT>", "<num=PL>"]


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("g2p", b"a", "line 2: expected source, target between tabs, as in most"),
        ("g2p", b"a\tb\tc", "got 3 fields: 'a.tb.tc'"),
        ("g2p", b"a\t", "line 2: an empty symbol"),
        ("g2p", b"\ta", "line 2: a word without characters"),
        ("g2p", b"a\tb  c", "line 2: an empty symbol"),
        ("g2p", b"a\t\xff", "line 2: 'utf-8' codec"),
        ("segmentation", b"a\t", "line 2: a word without characters"),
        ("segmentation", b"a\tb\t100", "line 2: expected source, target between tabs, as in most"),
    ],
)
def test_a_bad_line_is_named(tmp_path, task, line, message):
    path = put(tmp_path / "f", b"a\ta\n" + line + b"\nb\tb\nc\tc\n")
    with pytest.raises(DataError, match=message) as error:
        read(path, "x", FORMATS[task])
    assert str(error.value).startswith(f"{path}, line 2: ")


def test_a_format_of_ones_own(tmp_path):
    path = put(
        tmp_path / "own.yaml", "columns: [source, target]\nsource: symbols\nunit: clusters\n"
    )
    assert format_of(str(path)) == Format(("source", "target"), source="symbols", unit="clusters")
    for text, message in (
        ("colums: [source]", "expected names and values out of columns"),
        ("columns: [source, tgt]", "columns must be out of"),
        ("columns: [source, features, target]", "source and target first"),
        ("target: phones", "target must be one of characters, symbols, morphemes, got 'phones'"),
        ("a: [", "while parsing"),
        ("3", "expected names"),
    ):
        with pytest.raises(DataError, match=message):
            format_of(str(put(path, text)))
    with pytest.raises(DataError, match="neither g2p, segmentation, inflection nor a YAML file"):
        format_of("translation")


def test_duplicates_are_counted():
    items = [Item("x", "a", "b")] * 3 + [Item("x", "a", "c"), Item("y", "a", "b")]
    assert duplicates(items) == Duplicates(same=2, different=1)


# ---- folders


def test_names_of_files(tmp_path):
    for name in (
        "data/ady_train.tsv",
        "data/ces.word.train.tsv",
        "deep/er/german-train-medium",
        "german-train-high",
        "german-dev",
        "deu.trn",
        "ces.word.test.tsv",
        "README.md",
        ".hidden_train.tsv",
    ):
        put(tmp_path / name, "a\tb\n")
    files = Collection([tmp_path], FORMATS["g2p"], "medium")
    assert files.languages("train") == ["ady", "ces", "deu", "german"]
    assert files.languages("dev") == ["german"]
    gold = put(tmp_path / "ces.word.test.gold.tsv", "a\tb\n")
    assert Collection([tmp_path], FORMATS["g2p"]).paths["ces", "test"] == gold
    put(tmp_path / "again" / "ady_train.tsv", "a\tb\n")
    with pytest.raises(DataError, match=r"are both train of ady"):
        Collection([tmp_path], FORMATS["g2p"])


def test_one_file_of_any_name(tmp_path):
    path = put(tmp_path / "words.tsv", "".join(f"w{i // 2}\ta b\n" for i in range(100)))
    files = Collection([path], FORMATS["g2p"])
    assert files.choose("all") == ["words"]
    train, dev = files.train_and_dev("words")
    assert len(dev) == 10 and len(train) == 90
    assert not {item.source for item in train} & {item.source for item in dev}
    assert files.notes == ["words: no dev file, 10 training lines held out in its place"]


def test_languages_that_cannot_be(tmp_path):
    put(tmp_path / "a_train.tsv", "a\tb\n")
    put(tmp_path / "b_dev.tsv", "a\tb\n")
    files = Collection([tmp_path], FORMATS["g2p"])
    assert files.choose("all") == ["a"]
    assert files.notes == ["without training file, left out: b"]
    with pytest.raises(DataError, match=r"no training file of b c .*is one of: a"):
        files.choose("a, b c")
    with pytest.raises(DataError, match="too few lines"):
        files.train_and_dev("a")
    put(tmp_path / "a_dev.tsv", "\n")
    with pytest.raises(DataError, match=r"a_dev\.tsv: no lines"):
        Collection([tmp_path], FORMATS["g2p"]).train_and_dev("a")
    with pytest.raises(DataError, match="no such file or folder"):
        Collection([tmp_path / "nowhere"], FORMATS["g2p"])


def test_the_digest_is_of_the_content(tmp_path):
    one = put(tmp_path / "1" / "a_train.tsv", "a\tb\n")
    two = put(tmp_path / "2" / "a_train.tsv", "a\tb\n")

    def digest(path):
        return Collection([path.parent], FORMATS["g2p"]).digest()

    assert digest(one) == digest(two)
    put(two, "a\tc\n")
    assert digest(one) != digest(two)


# ---- subwords


def test_pieces_are_whole_symbols(tmp_path):
    words = [["t͡s", "a", "@@", "▁", "n"], ["a", "n", "a", "n"], ["t͡s", "a", "n", "<N>"]] * 20
    pieces = Subwords.train(words, 12)
    assert {"an", "ana", "anan"} & {p for word in words for p in pieces.pieces(word)}
    for word in [*words, ["a", "???", "t͡s", "<unk>"], ["<lang:x>"], []]:
        cut = pieces.pieces(word)
        assert pieces.symbols(cut) == word
        assert not any(piece.split() != [piece] for piece in cut)
    with pytest.raises(ValueError, match="there are 5 symbols: give more"):
        Subwords.train(words, 7)


@pytest.mark.parametrize("joined", [True, False])
def test_a_spelling_is_kept(tmp_path, joined):
    style = FORMATS["segmentation"]._replace(joined=joined)
    items = [Item("x", word, f"{word[:2]} @@{word[2:]}") for word in ("haus", "maus", "laus")] * 9
    spelling = Spelling.learn(style, items, 30)
    spelling.save(tmp_path)
    again = Spelling.load(tmp_path)
    assert again.style == style
    for item in items[:3]:
        tokens = spelling.target_tokens(item)
        assert again.target_tokens(item) == tokens and again.answer(tokens) == item.target
        assert again.source_tokens(item) == spelling.source_tokens(item)
        assert again.source_tokens(item)[-1] == "<lang:x>"


def test_a_broken_spelling_is_named(tmp_path):
    with pytest.raises(DataError, match=r"spelling\.json: "):
        Spelling.load(tmp_path)
    put(tmp_path / "spelling.json", '{"columns": 3}')
    with pytest.raises(DataError, match=r"spelling\.json: columns must be"):
        Spelling.load(tmp_path)


# ---- all data of the shared tasks


@pytest.mark.parametrize(
    ("archive", "folder", "task", "setting", "lines"),
    [
        ("transduction", "transduction/g2p2020", "g2p", None, 60_750),
        ("transduction", "transduction/g2p2021", "g2p", None, 136_512),
        ("transduction", "transduction/segmentation2022", "segmentation", None, 51_760),
        ("sigmorphon2018", "sigmorphon2018", "inflection", "medium", 160_573),
        ("sigmorphon2018", "sigmorphon2018", "inflection", "high", 100_000),
    ],
)
def test_what_is_written_back_is_what_was_read(
    archive, folder, task, setting, lines, tmp_path_factory
):
    path = SHARED / f"{archive}.tar.xz"
    if not path.is_file():
        pytest.skip(f"no {path.name} of the shared tasks' files beside the clone")
    place = tmp_path_factory.getbasetemp() / archive
    if not place.is_dir():
        with tarfile.open(str(path)) as tar:
            tar.extractall(str(place))
    style = FORMATS[task]
    files = Collection([place / folder], style, setting)
    read_lines = 0
    for (language, part), file in files.paths.items():
        if setting == "high" and part == "dev":  # it is that of medium
            continue
        found = files.read(language, part)
        assert "".join(line + "\n" for line in found.lines()).encode() == file.read_bytes()
        assert all(style.answer(style.target_symbols(item)) == item.target for item in found.items)
        read_lines += len(found.items)
    assert read_lines == lines
