"""Settings are read as literals: what fairseq writes has the value it had, all else is refused."""

import builtins
import importlib
import re
import subprocess
import sys
import textwrap
from argparse import Namespace
from dataclasses import fields, is_dataclass
from pathlib import Path

import fairseq
import pytest
from fairseq import options, utils
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.models import ARCH_CONFIG_REGISTRY, MODEL_DATACLASS_REGISTRY
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY

from fairseq_entmax.compat.configs import MAX_ITEMS, literal

FAIRSEQ = Path(fairseq.__file__).parent


def arch_settings():
    """The strings that fairseq's archs fill in."""
    for arch, fill in ARCH_CONFIG_REGISTRY.items():
        args = Namespace(arch=arch, data=".", task="translation", criterion="")
        try:
            fill(args)
        except (AttributeError, TypeError):  # it wants what the command line gives
            continue
        yield from (value for value in vars(args).values() if isinstance(value, str))


def dataclass_settings():
    """The strings that its models, optimizers and criterions have by default."""
    for registry in (
        MODEL_DATACLASS_REGISTRY,
        OPTIMIZER_DATACLASS_REGISTRY,
        CRITERION_DATACLASS_REGISTRY,
    ):
        for dataclass in filter(is_dataclass, registry.values()):
            yield from (f.default for f in fields(dataclass) if isinstance(f.default, str))


def source_settings():
    """The lists and tuples written as strings in its models, examples and pages."""
    pattern = re.compile(r"""(["'])(\s*[\[(][^"'\n]*[\])](?:\s*[*+][^"'\n]+)?)\1""")
    for path in [*FAIRSEQ.glob("models/**/*.py"), *FAIRSEQ.glob("optim/*.py")]:
        yield from (found[1] for found in pattern.findall(path.read_text(encoding="utf-8")))


def value_of(text):
    """What Python makes of a string that names nothing."""
    return builtins.eval(text, {"__builtins__": {}}, {})


def test_every_setting_of_fairseq_has_the_value_it_had():
    checked = []
    for text in {*arch_settings(), *dataclass_settings(), *source_settings()}:
        try:
            expected = value_of(text)
        except Exception:
            with pytest.raises(ValueError, match="refused to evaluate the setting"):
                literal(text)
        else:
            found = literal(text)
            assert found == expected and type(found) is type(expected), text
            checked.append(text)
    assert len(checked) > 20
    assert any("] * " in text for text in checked) and any("] + [" in text for text in checked)


@pytest.mark.parametrize(
    "text",
    [
        "0.1,0.2",
        "1/3",
        "2 ** -10",
        "5 * 1e-4",
        "-(3 + 4) % 5 // 1",
        "3 * [1, (2,)] + [0]",
        "((1024, 16, 4096, True, 0.15, 0.15, True),) * 16",
        "{'mu': {1: 'x'}, 'nu': {2, 3}}",
        "\t[1]\n",
    ],
)
def test_what_people_write_has_its_value(text):
    assert literal(text) == value_of(text.strip())


def test_functions_of_fairseq_keep_their_meaning():
    assert options.eval_str_list("0.5, 1") == [0.5, 1.0]
    assert options.eval_str_list("2", type=int) == [2]
    assert options.eval_str_list([1, 2]) == [1.0, 2.0]
    assert options.eval_bool("True") and not options.eval_bool("0")
    assert utils.eval_bool(True, default="as stock") == "as stock"  # eval(True) is a TypeError
    assert utils.eval_bool(None, default=True)
    assert options.eval_str_dict("{'a': 1}") == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        f"[0] * {MAX_ITEMS + 1}",
        f"[[0] * 1000] * {MAX_ITEMS // 1000}",
        "[[[[0] * 999] * 99] * 999] * 999",
        f"{MAX_ITEMS} * (0,)",
        "2 ** 4097",
        "10 ** 10 ** 10",
        "1e300 ** 2",
        "1 << 99",
        "1 / 0",
        "-" * 99_000 + "1",
        "[" * 99_000,
        "+".join(["1"] * 20_000),
        " " * 100_001,
        "9" * 5_000,
        "",
        "...",
        "1j * 2",
        "'a' + 'b'",
        "[1] - [1]",
        "*[1]",
        "{[]: 1}",
        "x := 1",
        "\0",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_too_much_or_nothing_is_refused(text):
    with pytest.raises(ValueError, match="refused to evaluate the setting") as caught:
        literal(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_every_module_of_fairseq_that_evaluates_reads_literals():
    direct = re.compile(r"(?<![\w.])eval\(")
    users = [p for p in FAIRSEQ.rglob("*.py") if direct.search(p.read_text(encoding="utf-8"))]
    users = [p for p in users if "examples" not in p.relative_to(FAIRSEQ).parts]
    assert len(users) > 10
    for path in users:
        name = ".".join(("fairseq", *path.relative_to(FAIRSEQ).with_suffix("").parts))
        try:
            module = importlib.import_module(name)
        except ImportError:  # it wants a library that is not installed
            continue
        assert module.eval is literal, name


LATER = """
    import sys
    {first}
    from fairseq import utils
    utils.import_user_module(__import__("argparse").Namespace(user_dir=sys.argv[1]))
    import fairseq.{module} as module
    assert module.eval.__name__ == "literal"
    assert sys.modules["beside"].eval.__name__ == "literal"
"""


def test_modules_imported_later_read_literals(tmp_path, monkeypatch):
    """A module of fairseq that nobody has imported yet, and an example of its own as user-dir."""
    folder = tmp_path / "fairseq"
    module = "later_module"
    script = textwrap.dedent(LATER).format(first="import fairseq_entmax", module=module)
    # a folder that fairseq counts as its own
    script = script.replace(
        "import fairseq_entmax",
        f"import fairseq; fairseq.__path__.append({str(folder)!r})\nimport fairseq_entmax",
    )
    (folder / "beside").mkdir(parents=True)
    (folder / "beside" / "__init__.py").write_text("")
    (folder / f"{module}.py").write_text("assert eval.__name__ == 'literal'\n")
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "beside")],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
