"""Where --user-dir may point to, and which import comes first."""

import shutil
import subprocess
import sys
from pathlib import Path

import fairseq
import pytest

from . import commands

CLONE = commands.REPO / "fairseq_entmax"

# what every fairseq command does with --user-dir; prints whence the package came
IMPORT = """
import argparse, sys
{first}
from fairseq import utils
utils.import_user_module(argparse.Namespace(user_dir=sys.argv[1]))
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.models import ARCH_MODEL_REGISTRY
assert "entmax_loss" in CRITERION_REGISTRY
assert {{"transformer_entmax_tiny", "lstm_entmax"}} <= ARCH_MODEL_REGISTRY.keys()
assert "two_headed_lstm_entmax" in ARCH_MODEL_REGISTRY
from fairseq.scoring import SCORER_REGISTRY
from fairseq.tasks import TASK_REGISTRY
assert "inflection" in TASK_REGISTRY and "inflection" in SCORER_REGISTRY
import fairseq_entmax
print(fairseq_entmax.__file__)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site-packages folder in which this package is installed beside fairseq."""
    folder = tmp_path_factory.mktemp("installed")
    source, target = folder / "source", folder / "site"
    # not from the repository itself: pip would leave its build folders there
    source.mkdir()
    for path in commands.REPO.iterdir():
        if path.is_file():
            shutil.copy(str(path), str(source))
    built = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(str(CLONE), str(source / CLONE.name), ignore=built)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run(
        [*pip, *options, str(source)],
        env=commands.environment(CC="false"),  # without a compiler; the kernels are optional
        timeout=commands.TIMEOUT,
        check=True,
    )
    link_fairseq(target)
    return target


def link_fairseq(site):
    """fairseq in a site-packages folder; not a link as a whole: it looks for NAME in its `..`."""
    (site / "fairseq").mkdir()
    for path in Path(fairseq.__file__).parent.iterdir():
        (site / "fairseq" / path.name).symlink_to(path)


def import_user_dir(user_dir, cwd, site="", first=""):
    return subprocess.run(
        [sys.executable, "-c", IMPORT.format(first=first), str(user_dir)],
        cwd=str(cwd),
        env=commands.environment(PYTHONPATH=site),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=commands.TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize("first", ["", "import fairseq_entmax"], ids=["fresh", "pre-imported"])
@pytest.mark.parametrize("place", ["installed", "clone"])
def test_everything_is_registered(site, tmp_path, place, first):
    user_dir, path = {
        "installed": ("fairseq_entmax", site),
        "clone": (CLONE, commands.REPO),
    }[place]
    done = import_user_dir(user_dir, tmp_path, site=path, first=first)
    assert done.returncode == 0, done.stdout
    imported = Path(done.stdout.splitlines()[-1]).resolve()
    assert imported == Path(path).resolve() / "fairseq_entmax" / "__init__.py"


def test_a_link_beside_fairseq_is_found(tmp_path):
    """What ``make install`` adds to an editable installation."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    site.mkdir()
    elsewhere.mkdir()
    link_fairseq(site)
    (site / "fairseq_entmax").symlink_to(CLONE)
    done = import_user_dir("fairseq_entmax", elsewhere, site=site)
    assert done.returncode == 0, done.stdout
    assert Path(done.stdout.splitlines()[-1]).resolve() == CLONE / "__init__.py"


def test_installed_package_trains_from_anywhere(site, data, tmp_path):
    log = commands.run(
        "fairseq-train",
        *commands.train_args(data, "model", *commands.ARCHS["lstm"], "--max-update", 1),
        "--disable-validation",
        cwd=tmp_path,
        PYTHONPATH=site,
    )
    assert len(commands.json_logs(log, "train_inner")) == 1
    assert (tmp_path / "model" / "checkpoint_last.pt").exists()


@pytest.mark.parametrize("before", [False, True], ids=["alone", "after fairseq"])
def test_the_mathematics_imports_no_fairseq_where_it_is_not_wanted(before):
    code = "import fairseq_entmax.functional, sys; print('fairseq' in sys.modules, end=' '); "
    code += "print('fairseq_entmax.models' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", ("import fairseq; " if before else "") + code],
        cwd=str(commands.REPO),
        env=commands.environment(FAIRSEQ_ENTMAX_REGISTER="off"),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=commands.TIMEOUT,
        check=True,
    )
    assert done.stdout.split() == [str(before)] * 2


def test_two_copies_are_refused(site, tmp_path):
    done = import_user_dir(CLONE, tmp_path, site=site, first="import fairseq_entmax")
    assert done.returncode != 0
    last_line = done.stdout.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: Failed to import --user-dir=")
    assert "fairseq_entmax" in last_line and "not globally unique" in last_line
