"""Files cut off at several places, and with one bit flipped at 200: every kind that is read.

What cannot be told: a bit flipped inside a word, a number or a line of text makes another one, and
a text cut at the end of a line is a shorter text. A checkpoint has checksums, an index and JSON
have an end.
"""

import pytest
import torch
from fairseq.data import Dictionary, indexed_dataset

from fairseq_entmax.analysis import sweeps, training
from fairseq_entmax.data import inflection, shards, transduction
from fairseq_entmax.data.files import write_json
from fairseq_entmax.data.spelling import Spelling
from fairseq_entmax.data.subwords import Subwords
from fairseq_entmax.transduction import folder as transducers
from tests.builders import dictionary
from tests.examples.scripts import load

from .damage import flipped, truncated
from .test_fuzzed_readers import refused_or_read
from .test_hostile_files import loaded, needs_protection, state  # noqa: F401  a fixture

SENTENCES = [[5, 6, 2], [7, 2], [5, 5, 5, 300, 2]]
PAIRS = "".join(f"Hund{i}\tHunde{i}\tN;PL\n" for i in range(9))


def _binarised(path):
    builder = indexed_dataset.make_builder(str(path.with_suffix(".bin")), "mmap", vocab_size=999)
    for sentence in SENTENCES:
        builder.add_item(torch.tensor(sentence))
    builder.finalize(str(path.with_suffix(".idx")))


def _sentences(path):
    data = indexed_dataset.make_dataset(str(path.with_suffix("")), "mmap")
    return [data[i].tolist() for i in range(len(data))]


def _spelling(path):
    lines = [list(f"Hund{i}") for i in range(20)]
    subwords = Subwords.train(lines, 30)
    Spelling(transduction.Format(), subwords, subwords).save(path.parent)


def _transducer(path):
    transducers.write_settings(path.parent, transducers.Settings("g2p", ("deu",)))


def _sweep(path):
    rows = [{"output_alpha": 1.5, "attention_alpha": a, "seed": 1, "bleu": a} for a in (1, 2)]
    write_json(path, rows)


def _curves(path):
    write_json(
        path, [{"curve": [{"cpu": 1}], "peer": "a", "peer_curve": [{"cpu": 2}], "case": "b"}]
    )


def _log(path):
    line = '2024-01-01 10:00:00 | INFO | train | {"train_loss": "2.5", "train_num_updates": "3"}\n'
    path.write_text(line * 5, encoding="utf-8")


def _shard(path):
    lines = [f"S-{i}\tHund\nT-{i}\tHunde\nH-{i}\t-0.1\tHunde\n" for i in range(5)]
    path.write_text("".join(lines) + "Shard\t0\tof\t1\n", encoding="utf-8")


def _merged(path):
    with open(path, encoding="utf-8", newline="\n") as file:
        return shards.merged([shards.read_shard("part", file)])


def text(content):
    return lambda path: path.write_text(content, encoding="utf-8")


def a_table(path):
    return transduction.read(path, "deu", transduction.format_of("inflection"))


# a file, how it is written and read, and whether every cut is noticed
KINDS = [
    ("dict.pl.txt", lambda p: dictionary().save(str(p)), lambda p: Dictionary.load(str(p)), False),
    ("train.idx", _binarised, _sentences, True),
    ("train.bin", _binarised, _sentences, True),
    ("deu.trn", text(PAIRS), lambda path: inflection.read(path, "deu"), False),
    ("deu.tsv", text(PAIRS), a_table, False),
    ("task.yaml", text("columns: [source, target]\nunit: clusters\n"), None, False),
    ("spelling.json", _spelling, lambda path: Spelling.load(path.parent), True),
    ("source.letters.json", _spelling, lambda path: Spelling.load(path.parent), True),
    ("source.spm", _spelling, lambda path: Spelling.load(path.parent), False),
    ("transducer.json", _transducer, lambda path: transducers.read_settings(path.parent), True),
    ("sweep.json", _sweep, sweeps.read_sweep, True),
    ("curves.json", _curves, sweeps.read_training_curves, True),
    ("train.log", _log, lambda path: training.read_training([path]), False),
    ("part0", _shard, _merged, True),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind[0])
def kind(request, tmp_path):
    """A file, what it holds, its reader, and whether every cut is noticed."""
    name, write, read, always = request.param
    path = tmp_path / name
    write(path)
    return path, path.read_bytes(), read or (lambda p: transduction.format_of(str(p))), always


def test_a_file_that_is_cut_off(kind):
    path, content, read, always = kind
    assert read(path) is not None
    for where, part in truncated(content).items():
        path.write_bytes(part)
        found = refused_or_read(read, path)
        # without its last line feed JSON is whole
        assert not always or found is None or content[len(part) :] == b"\n", where


def test_a_flipped_bit(kind):
    path, content, read, _ = kind
    for changed in flipped(content).values():
        path.write_bytes(changed)
        refused_or_read(read, path)


def test_a_flipped_bit_of_an_index_gives_no_other_sentences(tmp_path):
    path = tmp_path / "train.idx"
    _binarised(path)
    for where, changed in flipped(path.read_bytes()).items():
        path.write_bytes(changed)
        found = refused_or_read(_sentences, path)
        assert found in (None, SENTENCES), where


@pytest.fixture
def checkpoint(tmp_path, state):  # noqa: F811
    path = tmp_path / "model.pt"
    torch.save(state, str(path))
    return path


@needs_protection
def test_a_checkpoint_that_is_cut_off(checkpoint):
    for part in truncated(checkpoint.read_bytes(), points=16).values():
        checkpoint.write_bytes(part)
        assert refused_or_read(loaded, checkpoint) is None


@needs_protection
def test_a_flipped_bit_of_a_checkpoint_changes_no_weight(checkpoint, state):  # noqa: F811
    """torch itself takes it; the checksum of its record tells."""
    n_refused = 0
    for where, changed in flipped(checkpoint.read_bytes()).items():
        checkpoint.write_bytes(changed)
        model = refused_or_read(loaded, checkpoint)
        n_refused += model is None
        if model is not None:
            for name, value in model.state_dict().items():
                assert torch.equal(value, state["model"][name]), where
    assert n_refused > 100


def test_a_checkpoint_without_checksums_is_read(checkpoint, state):  # noqa: F811
    choose = getattr(torch.serialization, "set_crc32_options", None)
    if choose is None:
        pytest.skip("this torch always writes them")
    choose(False)
    try:
        torch.save(state, str(checkpoint))
    finally:
        choose(True)
    assert loaded(checkpoint)


@pytest.mark.parametrize("name", ["transducer.json", "spelling.json"])
def test_lists_in_lists(tmp_path, name):
    (tmp_path / name).write_text("[" * 200_000)
    read = transducers.read_settings if name.startswith("trans") else Spelling.load
    with pytest.raises(ValueError, match=r"nested too deep|Expecting value"):
        read(tmp_path)


@needs_protection
def test_what_this_package_opens_itself_is_compared_too(checkpoint, tmp_path):
    average = load("examples/translation/average.py")
    row = torch.load(str(checkpoint))["model"]["encoder.embed_tokens.weight"][4]
    content = bytearray(checkpoint.read_bytes())
    content[content.index(row.numpy().tobytes())] ^= 1
    checkpoint.write_bytes(content)
    (tmp_path / "data").mkdir()
    settings = transducers.Settings("g2p", ("deu",))
    for read in (
        lambda: average.average([checkpoint]),
        lambda: transducers.write(tmp_path / "model", tmp_path / "data", [checkpoint], settings),
    ):
        with pytest.raises(ValueError, match=r"the checksum of .* is another"):
            read()
