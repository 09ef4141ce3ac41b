"""Readers of files that people write, or that were damaged: a value, or one line of what is wrong.

``FUZZ_EXAMPLES=100000 make test-faults`` looks longer.
"""

import json
import os

import pytest
from fairseq.data import Dictionary

from fairseq_entmax.analysis import sweeps
from fairseq_entmax.analysis.training import read_training
from fairseq_entmax.compat.configs import literal
from fairseq_entmax.data import inflection, shards, spelling, transduction
from fairseq_entmax.data.subwords import Subwords
from fairseq_entmax.transduction import folder as transducers

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
st = hypothesis.strategies

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 150))
fuzzed = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)

numbers = st.one_of(
    st.integers(-1, 20), st.integers(), st.sampled_from(["nan", "inf", "1e400", "x", "9" * 25])
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
values = st.recursive(scalars, lambda more: st.lists(more, max_size=4), max_leaves=6)


def test_a_number_that_is_damaged_does_not_make_a_list():
    whole = shards.read_shard("part0", ["S-0\ta", f"S-{10**12}\tb", "Shard\t0\tof\t1"])
    with pytest.raises(ValueError, match=r"999999999999 sentences \(1 2 3 4 5 \.\.\.\) are"):
        shards.merged([whole])
    of_many = shards.read_shard("part0", [f"Shard\t0\tof\t{10**12}"])
    with pytest.raises(ValueError, match=r"999999999999 shards \(1 2 3 4 5 \.\.\.\) are missing"):
        shards.merged([of_many])


def test_an_update_without_a_number_is_left_out(tmp_path):
    lines = ["loss 2 | num_updates inf", "loss 1 | num_updates 3", "loss 1 | num_updates nan"]
    (tmp_path / "log").write_text("".join(f"2 | INFO | train | {line}\n" for line in lines))
    assert read_training([tmp_path / "log"]) == {"train": {"loss": [(3, 1.0)]}}


@pytest.mark.parametrize(
    ("name", "value"),
    [("languages", "deu"), ("beam", "5"), ("max_len", [2]), ("coverage", [1]), ("a\nb", 1)],
)
def test_settings_of_other_types(tmp_path, name, value):
    content = {"task": "g2p", "languages": ["deu"], name: value}
    (tmp_path / "transducer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"must be as|expected names") as refused:
        transducers.read_settings(tmp_path)
    assert "\n" not in str(refused.value)


def refused_or_read(function, *args):
    """What a reader is allowed: an answer, or a ValueError of one line (DataError is one)."""
    try:
        return function(*args)
    except ValueError as error:
        assert str(error) and len(str(error).splitlines()) == 1, error
        return None


tables = st.lists(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["Hund", "Hunde", "N;PL", "V|V;PST", "", " ", "é", "e\u0301", "\ufeffa"]
            ),
            st.text(max_size=6),
        ),
        min_size=1,
        max_size=5,
    ).map("\t".join),
    max_size=8,
).map(lambda lines: _encoded("\n".join(lines)))


def _encoded(text):
    return text.encode("utf-8", "surrogatepass")


any_bytes = st.one_of(tables, st.binary(max_size=60))


@fuzzed
@hypothesis.given(content=any_bytes)
def test_tables(tmp_path, content):
    path = tmp_path / "deu.trn"
    path.write_bytes(content)
    refused_or_read(inflection.read, path, "deu")
    for task in transduction.FORMATS:
        refused_or_read(transduction.read, path, "deu", transduction.format_of(task))


def _objects(*names):
    keys = st.one_of(st.sampled_from(names), st.text(max_size=4))
    return st.one_of(values, st.dictionaries(keys, values, max_size=6))


def test_columns_that_are_lists_in_lists(tmp_path):
    """Lists that YAML repeats by name: written out they would fill the memory."""
    lines = [
        "x0: &x0 [a]",
        *(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12)),
    ]
    (tmp_path / "task.yaml").write_text("columns:\n" + "".join(f"  - {line}\n" for line in lines))
    with pytest.raises(ValueError, match="columns must be out of"):
        transduction.format_of(str(tmp_path / "task.yaml"))
    (tmp_path / "task.yaml").write_text("columns: [source, [target]]\n")
    with pytest.raises(ValueError, match="columns must be out of"):
        transduction.format_of(str(tmp_path / "task.yaml"))


@fuzzed
@hypothesis.given(content=_objects(*transduction.Format._fields))
def test_spelling(tmp_path, content):
    (tmp_path / "spelling.json").write_text(json.dumps(content))
    refused_or_read(spelling.Spelling.load, tmp_path)


@fuzzed
@hypothesis.given(content=_objects(*transducers.Settings._fields))
def test_settings_of_a_transducer(tmp_path, content):
    (tmp_path / "transducer.json").write_text(json.dumps(content))
    refused_or_read(transducers.read_settings, tmp_path)


@fuzzed
@hypothesis.given(content=st.binary(max_size=40))
def test_json_that_is_none(tmp_path, content):
    for name in ("transducer.json", "spelling.json"):
        (tmp_path / name).write_bytes(content)
    refused_or_read(transducers.read_settings, tmp_path)
    refused_or_read(spelling.Spelling.load, tmp_path)


_yaml = st.one_of(
    st.builds(json.dumps, _objects(*transduction.Format._fields)),  # JSON is YAML
    st.lists(
        st.one_of(
            st.builds(
                "{}: {}".format,
                st.sampled_from([*transduction.Format._fields, "? [a]", "&a", "<<", "*a", "- "]),
                st.sampled_from(
                    ["[source, target]", "&a [*a]", "!!python/object:os.system x", "{"]
                ),
            ),
            st.text(max_size=12),
        ),
        max_size=5,
    ).map("\n".join),
)


@fuzzed
@hypothesis.given(content=st.one_of(_yaml.map(_encoded), st.binary(max_size=40)))
def test_yaml_of_a_task(tmp_path, content):
    path = tmp_path / "task.yaml"
    path.write_bytes(content)
    refused_or_read(transduction.format_of, str(path))


_entries = st.lists(
    st.one_of(
        st.builds("{} {}".format, st.sampled_from(["a", "b", "é", "<unk>", "\xa0", ""]), numbers),
        st.text(max_size=8),
    ),
    max_size=6,
).map("\n".join)


@fuzzed
@hypothesis.given(content=st.one_of(_entries.map(_encoded), st.binary(max_size=40)))
def test_dictionaries(tmp_path, content):
    path = tmp_path / "dict.de.txt"
    path.write_bytes(content)
    refused_or_read(Dictionary.load, str(path))


@fuzzed
@hypothesis.given(content=st.one_of(values, st.dictionaries(st.text(max_size=3), values)))
def test_letters_of_subwords(pieces, content):
    (pieces / "source.letters.json").write_text(json.dumps(content))
    refused_or_read(Subwords.load, pieces / "source")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    Subwords.train([list("abc"), list("cab")], 8).save(folder / "source")
    return folder


_runs = _objects("output_alpha", "attention_alpha", "seed", "bleu")
_points = st.one_of(values, st.lists(_objects("cpu_s", "num_updates", "support"), max_size=3))
_curves = st.fixed_dictionaries({"curve": _points, "peer_curve": _points, "peer": values})


@fuzzed
@hypothesis.given(rows=st.one_of(values, st.lists(st.one_of(_runs, _curves), max_size=4)))
def test_tables_of_runs(tmp_path, rows):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    refused_or_read(sweeps.read_training_curves, path)
    found = refused_or_read(sweeps.read_sweep, path)
    for figure in sweeps.figures_of(found) if found else ():
        sweeps.spreads(found, figure)


@fuzzed
@hypothesis.given(text=st.one_of(st.text(alphabet="[](){}*+-,1e.'\"a: ", max_size=30), st.text()))
def test_settings_that_are_evaluated(text):
    refused_or_read(literal, text)


printed = st.lists(
    st.one_of(
        st.builds("{}-{}\t{}".format, st.sampled_from("SHTDPX"), numbers, st.text(max_size=3)),
        st.builds("Shard\t{}\tof\t{}".format, numbers, numbers),
        st.text(max_size=10),
    ),
    max_size=10,
)


@fuzzed
@hypothesis.given(parts=st.lists(printed, min_size=1, max_size=3))
def test_shards(parts):
    read = [refused_or_read(shards.read_shard, f"part{i}", p) for i, p in enumerate(parts)]
    if None not in read:
        refused_or_read(shards.merged, read)


logged = st.lists(
    st.one_of(
        st.builds(
            "2024-01-01 10:00:00 | INFO | {} | {}".format,
            st.sampled_from(["train", "valid", "train_inner"]),
            st.one_of(
                st.builds(json.dumps, _objects("num_updates", "loss", "train_num_updates")),
                st.builds("loss {} | num_updates {}".format, numbers, numbers),
                st.text(max_size=20),
            ),
        ),
        st.text(max_size=20),
    ),
    max_size=6,
)


@fuzzed
@hypothesis.given(lines=logged)
def test_training_logs(tmp_path, lines):
    path = tmp_path / "train.log"
    path.write_bytes(_encoded("\n".join(lines)))
    refused_or_read(read_training, [path])
