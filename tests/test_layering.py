"""The house rules, read from the syntax tree: a room imports the rooms below it, never above."""

import ast
from pathlib import Path

import pytest

PACKAGE = "fairseq_entmax"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE
FILES = sorted(ROOT.rglob("*.py"))
over_files = pytest.mark.parametrize(
    "path", FILES, ids=[path.relative_to(ROOT).as_posix() for path in FILES]
)

# what each room may import besides itself
BELOW = {
    "kernels": set(),
    "data": set(),
    "functional": {"kernels"},
    "modules": {"functional", "data", "decoding"},
    "models": {"functional", "modules", "data"},
    "criterions": {"functional", "modules", "data", "decoding", "scoring"},
    "decoding": {"functional", "data"},
    "analysis": {"functional", "modules", "data", "decoding", "scoring"},
    "scoring": {"functional", "modules", "data"},
    "tasks": {"functional", "modules", "data", "decoding", "scoring"},
    "transduction": {"functional", "modules", "data", "decoding", "scoring"},
    "compat": set(),
}
EVERYTHING = set(BELOW)
WITHOUT_FAIRSEQ = {"kernels", "functional"}
# who draws, writes pages and serves them, each in a function that says what to install without it
LAZY = {
    "matplotlib": "analysis/pictures",
    "jinja2": "analysis/page",
    "flask": "analysis/explorer",
}
BACK_ENDS = {"plain", "device", "native", "triton"}

MAX_FILE_LINES = 300
MAX_KERNEL_LINES = 500
MAX_FUNCTION_LINES = 60  # 40 is the aim


def room_of(path):
    """The top-level folder or file that a source file belongs to; the package itself is ''."""
    first = path.relative_to(ROOT).parts[0]
    return "" if first in ("__init__.py", "__main__.py") else first.replace(".py", "")


def back_end_of(path):
    """The back end that a file belongs to, if any."""
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "kernels" and parts[1] in BACK_ENDS else None


def imported_modules(tree, path):
    """(absolute dotted name, node) of every import anywhere in a file, also inside functions."""
    folder = list(path.relative_to(ROOT.parent).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            base = ".".join(above + ([node.module] if node.module else []))
            # `from fairseq_entmax import models` imports a room, not a name
            for alias in node.names:
                yield f"{base}.{alias.name}", node
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", ""))
            in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value, node


def inside_functions(tree):
    """Every node that runs only when a function is called."""
    return {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }


def stray_imports(source, path):
    """One line for every import that the house does not allow."""
    tree = ast.parse(source)
    room, lazy = room_of(path), inside_functions(tree)
    found = []
    for name, node in imported_modules(tree, path):
        parts = name.split(".")
        top, reason = parts[0], None
        folder = path.relative_to(ROOT).parent.as_posix()
        if top in LAZY and not (folder == LAZY[top] and id(node) in lazy):
            reason = f"{top} is imported in functions of {LAZY[top]} only"
        elif top in ("fairseq", "fairseq_cli") and room in WITHOUT_FAIRSEQ:
            reason = f"{room} knows nothing of fairseq"
        elif top == "triton" and back_end_of(path) != "triton":
            reason = "triton is imported in kernels/triton only"
        elif top == PACKAGE:
            target = parts[1] if len(parts) > 1 else ""
            if room and target != room and target not in BELOW[room]:
                reason = f"{room} must not import {target or 'the package itself'}"
            elif back_end_of(path) and set(parts[2:3]) & BACK_ENDS - {back_end_of(path)}:
                reason = "a back end knows no other, only the contract"
        if reason:
            found.append(f"{path.relative_to(ROOT.parent)}:{node.lineno}: {name}: {reason}")
    return found


def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def body_lines(function):
    """Lines of a function without its docstring, which may be as long as the mathematics needs."""
    first = function.body[0]
    docstring = 0
    if ast.get_docstring(function) is not None:
        docstring = first.end_lineno - first.lineno + 1
    return function.end_lineno - function.lineno + 1 - docstring


@over_files
def test_no_stray_import(path):
    assert not stray_imports(path.read_text(encoding="utf-8"), path)


@over_files
def test_every_room_is_in_the_plan(path):
    assert room_of(path) in EVERYTHING | {""}


@over_files
def test_file_length(path):
    limit = MAX_KERNEL_LINES if room_of(path) == "kernels" else MAX_FILE_LINES
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= limit


@over_files
def test_function_length(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    too_long = {
        f.name: body_lines(f) for f in functions(tree) if body_lines(f) > MAX_FUNCTION_LINES
    }
    assert not too_long


def test_rooms_have_no_cycle():
    order = []
    rooms = dict(BELOW)
    while rooms:
        ready = [room for room, below in rooms.items() if below <= set(order)]
        assert ready, f"a cycle among {sorted(rooms)}"
        order += ready
        for room in ready:
            del rooms[room]


# ---- the checker itself


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("functional/mapping.py", "import fairseq"),
        ("functional/mapping.py", "from fairseq.modules import MultiheadAttention"),
        ("functional/mapping.py", "from ..modules import adopt"),
        ("functional/mapping.py", "def f():\n    from fairseq_entmax.models import lstm_entmax"),
        ("functional/mapping.py", "import importlib\nimportlib.import_module('fairseq.data')"),
        ("functional/deep/er.py", "from ...models import flags"),
        ("kernels/rows.py", "from fairseq_entmax.functional import entmax"),
        ("kernels/rows.py", "from ..functional.rows import Rows"),
        ("kernels/rows.py", "import triton"),
        ("data/unigram.py", "from fairseq_entmax.functional import entmax"),
        ("data/unigram.py", "from ..modules import adopt"),
        ("functional/mapping.py", "from ..data.files import write_lines"),
        ("kernels/choose.py", "def f():\n    import triton"),
        ("kernels/native/rows.py", "from ..plain import solver"),
        ("kernels/triton/rows.py", "from fairseq_entmax.kernels.native.rows import takes"),
        ("kernels/plain/rows.py", "from .. import native"),
        ("functional/mapping.py", "def f():\n    import triton"),
        ("modules/output.py", "from fairseq_entmax import models"),
        ("modules/output.py", "import fairseq_entmax.criterions.entmax_loss"),
        ("decoding/everywhere.py", "from fairseq_entmax.modules import output_alpha_of"),
        ("models/flags.py", "from fairseq_entmax.compat import apply"),
        ("models/flags.py", "from fairseq_entmax.decoding import make_sparse"),
        ("models/flags.py", "import fairseq_entmax"),
        ("criterions/entmax_loss.py", "from fairseq_entmax.models import lstm_entmax"),
        ("tasks/sparse_translation.py", "from fairseq_entmax import compat"),
        ("decoding/sparse_beam.py", "from fairseq_entmax.tasks import sparse_translation"),
        ("decoding/sparse_beam.py", "from fairseq_entmax.models import flags"),
        ("analysis/numbers.py", "from fairseq_entmax.tasks import sparse_translation"),
        ("analysis/pictures/heat.py", "import matplotlib.pyplot as plt"),
        ("analysis/pictures/heat.py", "try:\n    from matplotlib import cm\nexcept ImportError: 0"),
        ("analysis/plots.py", "def f():\n    import matplotlib"),
        ("analysis/pictures/heat.py", "def f():\n    import jinja2"),
        ("analysis/page/html.py", "def f():\n    import flask"),
        ("models/flags.py", "def f():\n    import matplotlib"),
        ("compat.py", "from fairseq_entmax.models import flags"),
        ("compat.py", "from fairseq_entmax.decoding import make_sparse"),
        ("compat.py", "from .tasks import sparse_translation"),
    ],
)
def test_checker_finds(file, source):
    assert stray_imports(source, ROOT / file)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("functional/mapping.py", "import torch\nfrom .checks import Alpha\nfrom . import rows"),
        ("functional/mapping.py", "from fairseq_entmax.kernels import rows"),
        ("data/unigram.py", "import fairseq\nfrom .files import write_lines"),
        ("decoding/report.py", "from fairseq_entmax.data.files import write_json"),
        ("kernels/triton/rows.py", "import triton"),
        ("kernels/native/rows.py", "from ..contract import SolvedRows\nfrom .library import call"),
        ("kernels/choose.py", "from . import native, plain"),
        ("modules/output.py", "import fairseq\nfrom ..functional import entmax"),
        ("models/flags.py", "from fairseq_entmax.modules import adopt"),
        ("tasks/sparse_translation.py", "from fairseq_entmax.decoding import make_sparse"),
        ("analysis/pictures/heat.py", "def plot():\n    import matplotlib.pyplot as plt"),
        ("analysis/page/html.py", "def page():\n    import jinja2"),
        ("analysis/explorer/app.py", "def app():\n    import flask"),
        ("modules/__init__.py", "from fairseq_entmax.decoding.everywhere import output_alpha_of"),
        ("__init__.py", "from fairseq_entmax import compat, criterions, models"),
    ],
)
def test_checker_allows(file, source):
    assert not stray_imports(source, ROOT / file)


def test_checker_measures_functions():
    lines = "\n".join(f"    x = {i}" for i in range(50))
    (function,) = functions(ast.parse(f'def f():\n    """One\n    two."""\n{lines}\n'))
    assert body_lines(function) == 51
