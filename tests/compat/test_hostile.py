"""Nothing that a checkpoint holds is run: not its pickle, not its settings.

The table of hostile files is tests/faults/hostile.py.
"""

import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import fairseq
import pytest
import torch
from fairseq import checkpoint_utils, utils
from fairseq.models import fconv, transformer_lm
from fairseq.optim import adam

from fairseq_entmax.compat.configs import literal
from tests.builders import Task, build
from tests.cli import commands

needs_protection = pytest.mark.skipif(
    not hasattr(torch.serialization, "add_safe_globals"), reason="torch < 2.4 cannot refuse"
)


class Hostile:
    def __init__(self, victim):
        self.victim = str(victim)

    def __reduce__(self):
        return os.mkdir, (self.victim,)


@needs_protection
def test_moving_averages_are_loaded_by_the_same_rule(tmp_path):
    path, victim = tmp_path / "model.pt", tmp_path / "victim"
    torch.save({"extra_state": {"ema": Hostile(victim)}}, str(path))
    with pytest.raises(ValueError, match="refused to load"):
        checkpoint_utils.load_ema_from_checkpoint(str(path))
    assert not victim.exists()


@needs_protection
def test_main_branch_asks_for_an_unsafe_load_in_vain(tmp_path):
    """fairseq's main branch passes weights_only=False: a copy of the installed one, changed so."""
    copy = tmp_path / "site"
    shutil.copytree(
        Path(fairseq.__file__).parent,
        copy / "fairseq",
        ignore=shutil.ignore_patterns("__pycache__", "examples"),
    )
    changed = copy / "fairseq" / "checkpoint_utils.py"
    source = changed.read_text(encoding="utf-8")
    assert "torch.load(f, map_location" in source
    changed.write_text(
        source.replace(
            "torch.load(f, map_location", "torch.load(f, weights_only=False, map_location"
        ),
        encoding="utf-8",
    )
    victim, path = tmp_path / "victim", tmp_path / "hostile.pt"
    torch.save({"model": {}, "args": Hostile(victim)}, str(path))
    code = "import sys; {}\nfrom fairseq import checkpoint_utils\n" + (
        "assert 'site' in checkpoint_utils.__file__\n"
        f"checkpoint_utils.load_checkpoint_to_cpu({str(path)!r})"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), str(commands.REPO)])}

    def loaded(first):
        return subprocess.run(
            [sys.executable, "-c", code.format(first)],
            env=env,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )

    done = loaded("import fairseq_entmax")
    assert "refused to load the checkpoint" in done.stderr.splitlines()[-1]
    assert not victim.exists()
    loaded("")
    assert victim.exists(), "without the repair it runs, or this test shows nothing"


# ---- settings


def test_literals_are_what_fairseq_writes():
    for text in ("[(512, 3)] * 20", "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"):
        assert literal(text) == eval(text)
    for text in ("(0.9, 0.98)", "1e-30", "-1", "[]", "{'a': [1, 2]}", "True", "None", " 0.25,0.5 "):
        assert literal(text) == eval(text.strip())
    for value in (True, None, 3, b"1"):
        with pytest.raises(TypeError):
            literal(value)


HOSTILE = [
    "open('pwned', 'w')",
    "__import__('os').mkdir('pwned')",
    "[__import__('os').mkdir('pwned')] * 2",
    "(lambda: 0)()",
    "[x for x in (1, 2)]",
    "f'{1}'",
    "().__class__.__bases__",
    "exit()",
    "[0] * 10 ** 9",
    "[[0] * 9999] * 9999 * 9999",
    "9 ** 9 ** 9",
    "'a' * 10 ** 9",
    "{**{}}",
    "(" * 500,
    "print",
    "1 if True else 2",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_config_is_refused_wherever_it_is_evaluated(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for evaluate in (utils.eval_bool, utils.eval_str_list, utils.eval_str_dict):
        with pytest.raises(ValueError, match="refused to evaluate the setting"):
            evaluate(text)
    for module in (fconv, transformer_lm, adam):
        assert module.__dict__["eval"] is literal
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arch", "setting"),
    [
        ("lstm", "decoder_attention"),
        ("lstm_entmax", "decoder_attention"),
        ("fconv", "encoder_layers"),
        ("fconv", "decoder_layers"),
        ("fconv", "decoder_attention"),
        ("fconv_entmax", "decoder_layers"),
        ("fconv_self_att", "self_attention"),
        ("fconv_self_att", "pretrained"),
        ("fconv_self_att", "downsample"),
    ],
)
def test_hostile_config_of_a_model_is_refused(arch, setting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = {"max_source_positions": 64, "max_target_positions": 64}
    with pytest.raises(ValueError, match='refused to evaluate the setting "open'):
        build(arch, task=Task(), **{**flags, setting: "open('pwned', 'w')"})
    assert not (tmp_path / "pwned").exists()


def test_hostile_config_of_a_checkpoint_runs_nothing(tmp_path):
    """Through fairseq-generate, from a checkpoint that loads weights-only."""
    text = tmp_path / "text"
    text.mkdir()
    for name in ("train.a", "train.b", "test.a", "test.b"):
        (text / name).write_text("x y\n" * 4)
    data = tmp_path / "bin"
    commands.run(
        *("fairseq-preprocess", "-s", "a", "-t", "b", "--trainpref", text / "train"),
        *("--testpref", text / "test", "--destdir", data),
    )
    victim = tmp_path / "pwned"
    model = Namespace(
        _name="lstm_entmax", arch="lstm_entmax", decoder_attention=f"open({str(victim)!r}, 'w')"
    )
    task = Namespace(_name="translation", data=str(data), source_lang="a", target_lang="b")
    path = tmp_path / "model.pt"
    history = {"criterion_name": "entmax_loss", "optimizer_name": "", "num_updates": 1}
    state = {"cfg": {"model": model, "task": task}, "args": None, "model": {}, "extra_state": {}}
    state["optimizer_history"] = [{**history, "lr_scheduler_state": {}, "best_loss": None}]
    state["extra_state"]["train_iterator"] = {"epoch": 1}
    torch.save(state, str(path))
    done = commands.attempt(
        *("fairseq-generate", data, *commands.USER_DIR, "--path", path, "--cpu"),
    )
    assert done.code != 0
    assert not victim.exists()
    assert "refused to evaluate the setting" in done.output
