"""The faults of fairseq that compat.py mends; each test fails without its function."""

import argparse
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import LanguagePairDataset, ListDataset, TokenBlockDataset, data_utils
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.tasks import FairseqTask

from fairseq_entmax import compat
from fairseq_entmax.criterions.entmax_loss import EntmaxLossCriterion
from tests.builders import Task, batch, build
from tests.decoding.table_model import dictionary

checks_pickles = pytest.mark.skipif(
    tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 6),
    reason="torch before 2.6 loads any pickle, with or without compat.py",
)


def saved(path, **extra):
    state = {
        "args": None,
        "cfg": {"model": argparse.Namespace(arch="lstm_entmax", output_alpha=1.5)},
        "model": {"w": torch.ones(2)},
        "optimizer_history": [{"num_updates": 1, "lr_scheduler_state": {}, "optimizer_name": ""}],
        "last_optimizer_state": None,
        "extra_state": {"train_iterator": {"epoch": 1}},
        **extra,
    }
    torch.save(state, path)
    return str(path)


def test_checkpoint_with_namespace_loads(tmp_path):
    state = checkpoint_utils.load_checkpoint_to_cpu(saved(tmp_path / "a.pt"))
    assert state["cfg"]["model"].output_alpha == 1.5


@pytest.mark.parametrize(
    "value",
    [np.float64(1.5), np.float32(1.5), np.int64(3), np.arange(3), np.ones(2)],
    ids=["float64", "float32", "int64", "integers", "floats"],
)
def test_checkpoint_with_numpy_values_loads(tmp_path, value):
    path = saved(tmp_path / "a.pt", bleu=value)
    loaded = checkpoint_utils.load_checkpoint_to_cpu(path)["bleu"]
    assert np.array_equal(loaded, value)


@checks_pickles
@pytest.mark.parametrize("package", [b"numpy.core", b"numpy._core"], ids=["numpy1", "numpy2"])
def test_checkpoint_from_either_numpy_loads(tmp_path, package):
    written = saved(tmp_path / "written.pt", bleu=np.float64(1.5))
    rewritten = str(tmp_path / "rewritten.pt")
    with zipfile.ZipFile(written) as old, zipfile.ZipFile(rewritten, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                data = re.sub(rb"cnumpy\._?core", b"c" + package, data)
                assert package + b".multiarray\nscalar" in data
            new.writestr(name, data)
    assert checkpoint_utils.load_checkpoint_to_cpu(rewritten)["bleu"] == 1.5


class Hostile:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch {self.victim}",)


@checks_pickles
def test_hostile_checkpoint_is_refused_and_nothing_runs(tmp_path):
    victim = tmp_path / "executed"
    path = saved(tmp_path / "hostile.pt", payload=Hostile(victim))
    with pytest.raises(ValueError, match="refused to load the checkpoint") as caught:
        checkpoint_utils.load_checkpoint_to_cpu(path)
    assert not victim.exists()
    message = str(caught.value)
    assert path in message and "system" in message
    assert "weights_only" not in message  # no advice to switch the protection off


def test_hostile_pickle_would_run_if_it_were_loaded(tmp_path):
    victim = tmp_path / "executed"
    pickle.loads(pickle.dumps(Hostile(victim)))
    assert victim.exists()


@pytest.mark.parametrize("size", [1, 3, 8, 9, 100, 101])
@pytest.mark.parametrize("limits", [{"max_sentences": 32}, {"max_tokens": 64}], ids=str)
def test_last_batch_is_kept(size, limits):
    batches = data_utils.batch_by_size(
        np.arange(size), lambda i: 2, required_batch_size_multiple=8, **limits
    )
    assert np.concatenate(batches).tolist() == list(range(size))


def test_last_batch_of_nothing():
    assert len(data_utils.batch_by_size([], lambda i: 2, required_batch_size_multiple=8)) == 0


def test_last_batch_leaves_fixed_shapes_alone():
    shapes = [(4, 8)]
    arguments = (np.arange(6), lambda i: 5)
    batches = data_utils.batch_by_size(*arguments, fixed_shapes=shapes)
    stock = data_utils.batch_by_size.__wrapped__(*arguments, fixed_shapes=shapes)
    assert [list(b) for b in batches] == [list(b) for b in stock]


def toy_data():
    sentences = [torch.tensor([4, 5, 2]), torch.tensor([4, 2]), torch.tensor([6, 7, 8, 2])]
    sizes = np.array([len(s) for s in sentences])
    return ListDataset(sentences, sizes), sizes


def test_numpy_compat_in_sentence_blocks():
    data, sizes = toy_data()
    blocks = TokenBlockDataset(data, sizes, block_size=None, pad=1, eos=2, break_mode="eos")
    assert [len(block) for block in blocks] == sizes.tolist()


def test_numpy_compat_in_bucketed_translation_data():
    data, sizes = toy_data()
    words = dictionary("abcdef")
    pairs = LanguagePairDataset(data, sizes, words, data, sizes, words, num_buckets=2)
    assert len(pairs.buckets) > 0 and len(pairs) == 3


class PlainOptimizer:
    def backward(self, loss):
        loss.backward()


class MixedOptimizer(PlainOptimizer, AMPOptimizer):
    def __init__(self):
        pass


def step(arch, optimizer):
    """The types that the first projection of the decoder returned, the loss, the gradients."""
    model = build(arch)
    types = []
    linear = next(m for m in model.decoder.modules() if isinstance(m, torch.nn.Linear))
    linear.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
    task = Task()
    criterion = EntmaxLossCriterion(task, sentence_avg=False)
    arguments = {"sample": batch(), "model": model, "criterion": criterion, "update_num": 0}
    loss, _, _ = FairseqTask.train_step(task, optimizer=optimizer, **arguments)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return set(types), loss.item(), torch.nn.utils.parameters_to_vector(gradients)


@pytest.mark.parametrize("arch", ["transformer_entmax_tiny", "lstm_entmax"])
def test_amp_mixes_precision_on_a_cpu(arch):
    types, loss, gradient = step(arch, PlainOptimizer())
    assert types == {torch.float32}
    types, mixed_loss, mixed_gradient = step(arch, MixedOptimizer())
    assert types == {torch.bfloat16}
    assert mixed_loss == pytest.approx(loss, rel=2e-2)
    assert mixed_gradient.dtype == torch.float32
    assert torch.cosine_similarity(mixed_gradient, gradient, dim=0) > 0.99


def test_applied_once():
    before = FairseqTask.build_generator
    compat.apply()
    assert FairseqTask.build_generator is before
