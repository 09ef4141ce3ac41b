"""What is read, refused and written before a translation model is trained."""

import json
import sys

import pytest
import sentencepiece

from tests.cli import corpus

from .scripts import load

prepare = load("examples/translation/prepare.py")
corpora = load("examples/translation/corpora.py")

PAIRS = corpus.sentence_pairs()


def write_corpus(folder, name="train", sides=None):
    folder.mkdir(exist_ok=True)
    for language, side in zip(("de", "en"), sides or zip(*PAIRS)):
        content = side if isinstance(side, bytes) else "".join(f"{x}\n" for x in side).encode()
        (folder / f"{name}.{language}").write_bytes(content)


@pytest.fixture
def data(tmp_path):
    for name in ("train", "val"):
        write_corpus(tmp_path / "data", name)
    return tmp_path / "data"


def run(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    module.main()


def prepare_training(monkeypatch, data, out, *more):
    languages = ("--src", "de", "--tgt", "en")
    run(monkeypatch, prepare, "train", "--data", data, *languages, "--out", out, *more)


def decoded(model, path):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return [pieces.decode(line.split(" ")) for line in lines]


# ---- good input


def test_pieces_give_the_text_back(data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    prepare_training(monkeypatch, data, out, "--vocab", 100)
    for language, side in zip(("de", "en"), zip(*PAIRS)):
        for name in ("train", "valid"):
            assert decoded(out / "spm.model", out / f"{name}.{language}") == list(side)
    assert f"train: {len(PAIRS)} pairs" in capsys.readouterr().out
    assert not list(out.glob("*.part")) + list(out.glob("learning*"))


@pytest.mark.parametrize("vocab", [100, 50_000], ids=["fits", "larger than the text"])
def test_size_of_the_vocabulary(vocab, data, tmp_path, monkeypatch):
    prepare_training(monkeypatch, data, tmp_path, "--vocab", vocab)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    assert model.get_piece_size() == 100 if vocab == 100 else model.get_piece_size() < 1000


def test_a_vocabulary_smaller_than_the_alphabet(data, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"--vocab 5: no pieces for a text with \d+ different"):
        prepare_training(monkeypatch, data, tmp_path, "--vocab", 5)


def test_only_the_line_feed_ends_a_line(tmp_path):
    odd = ["a\tb", "a\u2028b", "a\x85b", "a\x0bb", "a\x0cb", "a\x1cb", "a\u00a0b", "a\rb", " a b\r"]
    path = tmp_path / "odd"
    for end in ("\n", ""):
        path.write_bytes(("\n".join(odd) + end).encode())
        assert prepare.read_lines(path) == ["a b"] * len(odd)


def test_byte_order_mark(tmp_path):
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbfa\n")
    assert prepare.read_lines(tmp_path / "bom") == ["a"]


def test_text_that_looks_like_symbols(data, tmp_path, monkeypatch):
    """fairseq would read </s> as the end of the sentence."""
    special = ["a <pad> b", "</s> <s> c", "c d"] * 5
    write_corpus(data, "train", (special, special))
    prepare_training(monkeypatch, data, tmp_path / "out", "--vocab", 60)
    pieces = (tmp_path / "out" / "train.de").read_text(encoding="utf-8").split()
    assert not {"<pad>", "<s>", "</s>"} & set(pieces)
    found = decoded(tmp_path / "out" / "spm.model", tmp_path / "out" / "train.de")
    assert (found[0][0], found[0][-1]) == ("a", "b")
    assert found[2::3] == special[2::3]


def test_long_training_pairs_are_left_out(data, tmp_path, monkeypatch, capsys):
    prepare_training(monkeypatch, data, tmp_path, "--vocab", 60, "--max-length", 16)
    sides = [
        (tmp_path / f"train.{language}").read_text(encoding="utf-8").splitlines()
        for language in ("de", "en")
    ]
    kept = len(sides[0])
    assert 0 < kept < len(PAIRS) and len(sides[1]) == kept
    assert all(len(line.split()) <= 16 for side in sides for line in side)
    left_out = len(PAIRS) - kept
    assert f"train: {left_out} pairs of more than 16 pieces left out" in capsys.readouterr().out


def test_a_test_set_keeps_every_line(data, tmp_path, monkeypatch):
    prepare_training(monkeypatch, data, tmp_path / "out")
    write_corpus(data, "t", ([x for x, _ in PAIRS[:3]], ["One .", "Two  dogs", "Three\tcats"]))
    run(
        *(monkeypatch, prepare, "test", "--prefix", data / "t", "--src", "de", "--tgt", "en"),
        *("--model", tmp_path / "out" / "spm.model", "--out", tmp_path / "t"),
    )
    reference = (tmp_path / "t" / "reference").read_text(encoding="utf-8")
    assert reference == "One .\nTwo dogs\nThree cats\n"
    model = tmp_path / "out" / "spm.model"
    assert decoded(model, tmp_path / "t" / "test.de") == [x for x, _ in PAIRS[:3]]


def test_a_long_test_line_is_cut_and_said(data, tmp_path, monkeypatch, capsys):
    prepare_training(monkeypatch, data, tmp_path / "out")
    long = "Der Hund schläft. " * 400
    write_corpus(data, "t", (["Der Hund", long], ["The dog", "The dog"]))
    run(
        *(monkeypatch, prepare, "test", "--prefix", data / "t", "--src", "de", "--tgt", "en"),
        *("--model", tmp_path / "out" / "spm.model", "--out", tmp_path / "t"),
    )
    lengths = [len(line.split()) for line in read(tmp_path / "t" / "test.de")]
    assert len(lengths) == 2 and lengths[0] < 20 and lengths[1] == 1000
    assert "test, line 2: cut after 1000 pieces" in capsys.readouterr().out


# ---- bad input


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ((b"a\n\nb\n", b"a\nb\nc\n"), r"train\.de, line 2: the line is empty"),
        ((b"a\nb\n", b"a\n \t\n"), r"train\.en, line 2: the line is empty"),
        ((b"a\nb\xff\n", b"a\nb\n"), r"train\.de, line 2: not UTF-8 .* byte 2"),
        ((b"a\nb\n", b"a\n\xc3\n"), r"train\.en, line 2: not UTF-8"),
        ((b"a\nb\nc\n", b"a\n"), r"train\.de, line 2: no line to match .* 3 lines, train.en 1"),
        ((b"a\n", b"a\nb\n"), r"train\.en, line 2: no line to match"),
        ((b"", b"a\n"), r"train\.de: the file is empty"),
        ((b"a\n\n", b"a\nb\n"), r"train\.de, line 2: the line is empty"),
        ((b"a\n\xe2\x80\x8b\n", b"a\nb\n"), r"train, line 2: nothing is left of it"),
    ],
    ids=[
        "empty",
        "blank",
        "de not UTF-8",
        "cut off",
        "longer",
        "shorter",
        "no line",
        "end",
        "zero",
    ],
)
def test_bad_text_is_refused(sides, message, data, tmp_path, monkeypatch):
    write_corpus(data, "train", sides)
    with pytest.raises(SystemExit, match=message):
        prepare_training(monkeypatch, data, tmp_path / "out", "--vocab", 20)
    assert not (tmp_path / "out" / "train.de").exists()


def test_a_missing_side_is_named(data, tmp_path, monkeypatch):
    (data / "train.en").unlink()
    with pytest.raises(SystemExit, match=r"train\.en: no such file"):
        prepare_training(monkeypatch, data, tmp_path)
    write_corpus(data, "train")
    (data / "val.de").unlink()
    with pytest.raises(SystemExit, match=r"no validation set \(looked for valid.de, val.de"):
        prepare_training(monkeypatch, data, tmp_path)
    with pytest.raises(SystemExit, match="nowhere: no such folder"):
        prepare_training(monkeypatch, tmp_path / "nowhere", tmp_path)


def test_a_folder_keeps_to_its_settings(data, tmp_path, monkeypatch):
    setting = ("--setting", "seed=1", "recipe=lstm")
    prepare_training(monkeypatch, data, tmp_path / "out", *setting)
    before = (tmp_path / "out" / "train.de").read_bytes()
    prepare_training(monkeypatch, data, tmp_path / "out", *setting)
    with pytest.raises(SystemExit, match="holds a run with seed=1, now seed is 2"):
        prepare_training(monkeypatch, data, tmp_path / "out", "--setting", "seed=2", "recipe=lstm")
    write_corpus(data, "val", (["x"], ["y"]))
    with pytest.raises(SystemExit, match="holds a run with content of the data="):
        prepare_training(monkeypatch, data, tmp_path / "out", *setting)
    assert (tmp_path / "out" / "train.de").read_bytes() == before
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["seed"] == "1"


# ---- the corpora as they are distributed


def put(folder, **files):
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


def seg(*lines):
    inner = "\n".join(f'<seg id="{i}"> {line} </seg>' for i, line in enumerate(lines, 1))
    return f'<mteval>\n<doc docid="1">\n{inner}\n</doc>\n</mteval>\n'


def read(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_iwslt(tmp_path, monkeypatch, capsys):
    n = 2 * 23 + 1
    spoken = {
        language: "<url>http://x</url>\n<keywords>a</keywords>\n"
        + "".join(f"{language} {i}\n" if i != 5 else "\n" for i in range(n))
        + '<reviewer href="x">y</reviewer>\n'
        for language in ("de", "en")
    }
    put(tmp_path, **{f"train.tags.de-en.{lang}": text for lang, text in spoken.items()})
    for year in ("dev2010", "tst2010"):
        for language in ("de", "en"):
            name = f"IWSLT14.TED.{year}.de-en.{language}.xml"
            put(tmp_path, **{name: seg(f"{year} {language} &amp; more")})
    out = tmp_path / "out"
    run(monkeypatch, corpora, "iwslt", tmp_path, "--src", "de", "--tgt", "en", "--out", out)
    assert read(out / "valid.en") == ["en 0", "en 23", "en 46"]
    rest = [i for i in range(n) if i % 23 and i != 5]
    assert read(out / "train.de") == [f"de {i}" for i in rest]
    assert read(out / "test.de") == ["dev2010 de & more", "tst2010 de & more"]
    assert "1 with an empty side left out" in capsys.readouterr().out


@pytest.mark.parametrize(("src", "tgt"), [("ro", "en"), ("en", "ro")])
def test_wmt16(src, tgt, tmp_path, monkeypatch):
    for language in ("ro", "en"):
        put(tmp_path, **{f"europarl-v8.ro-en.{language}": f"{language} 1\n"})
        put(tmp_path, **{f"SETIMES.en-ro.{language}": f"{language} 2\n"})
    for name in ("newsdev2016", "newstest2016"):
        for kind, language in (("src", src), ("ref", tgt)):
            put(tmp_path, **{f"{name}-{src}{tgt}-{kind}.{language}.sgm": seg(f"{name} {language}")})
    out = tmp_path / "out"
    run(monkeypatch, corpora, "wmt16_roen", tmp_path, "--src", src, "--tgt", tgt, "--out", out)
    assert read(out / f"train.{src}") == [f"{src} 1", f"{src} 2"]
    assert read(out / f"test.{tgt}") == [f"newstest2016 {tgt}"]


@pytest.mark.parametrize(
    ("name", "languages", "files"),
    [
        ("kftt", ("ja", "en"), ("kyoto-train", "kyoto-dev", "kyoto-test")),
        ("multi30k", ("de", "fr"), ("train", "val", "test_2016_flickr")),
    ],
)
def test_plain_files(name, languages, files, tmp_path, monkeypatch):
    for file in files:
        for language in languages:
            put(tmp_path, **{f"{file}.{language}": f"{file}\u2028{language}\n"})
    out, (src, tgt) = tmp_path / "out", languages
    run(monkeypatch, corpora, name, tmp_path, "--src", src, "--tgt", tgt, "--out", out)
    for split, file in zip(("train", "valid", "test"), files):
        assert prepare.read_lines(out / f"{split}.{src}") == [f"{file} {src}"]


def test_missing_files_say_where_they_are(tmp_path, monkeypatch):
    given = ("--src", "ja", "--tgt", "en", "--out", tmp_path / "out")
    with pytest.raises(SystemExit, match=r"kyoto-train.ja: No such file[\s\S]*phontron.com/kftt"):
        run(monkeypatch, corpora, "kftt", tmp_path, *given)
    put(tmp_path, **{"kyoto-train.ja": "a\nb\n", "kyoto-train.en": "a\n"})
    with pytest.raises(SystemExit, match=r"kyoto-train.ja has 2 lines, kyoto-train.en 1"):
        run(monkeypatch, corpora, "kftt", tmp_path, *given)
