"""What is public is documented: at least 95% of modules, classes, functions and their methods."""

import ast
import re
from fnmatch import filter as filter_names
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

REPO = Path(__file__).resolve().parent.parent
FILES = sorted((REPO / "fairseq_entmax").rglob("*.py"))
LEAST = 0.95

Node = ast.AST


def is_public(name: str) -> bool:
    return not name.startswith("_")


def public(body: List[Node], prefix: str) -> Iterator[Tuple[str, Node]]:
    """(dotted name, node) of the public classes, functions, and methods of public classes."""
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and is_public(node.name):
            yield f"{prefix}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}.{node.name}")


def documented(source: str, module: str) -> Iterator[Tuple[str, bool]]:
    """Each public name of a module, and whether it has a docstring."""
    tree = ast.parse(source)
    for name, node in ((module, tree), *public(tree.body, module)):
        yield name, bool(ast.get_docstring(node))


def of_the_package() -> List[Tuple[str, bool]]:
    return [
        found
        for path in FILES
        for found in documented(
            path.read_text(encoding="utf-8"), path.relative_to(REPO).with_suffix("").as_posix()
        )
    ]


def test_public_names_are_documented():
    found = of_the_package()
    bare = [name for name, has in found if not has]
    assert len(found) > 300
    assert 1 - len(bare) / len(found) >= LEAST, "\n".join(bare)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", [False]),
        ("'''Module.'''\ndef f(): pass", [True, False]),
        ("def _f(): pass\nclass _C:\n    def f(self): pass", [False]),
        ("class C:\n    '''C.'''\n    def __init__(self): pass\n    def f(self): pass", [0, 1, 0]),
        ("def f():\n    '''F.'''\n    def inner(): pass", [False, True]),
    ],
)
def test_the_counter_counts(source, expected):
    assert [has for _, has in documented(source, "m")] == expected


def test_every_test_that_a_docstring_names_exists():
    named = []
    pages = [REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").glob("*.md")]
    for path in [*FILES, *pages]:
        text = path.read_text(encoding="utf-8")
        named += [
            (path, *match) for match in re.findall(r"(tests/[\w/]+\.py)(?:::([\w*]+))?", text)
        ]
    assert len(named) > 10
    for where, file, function in named:
        path = REPO / file
        assert path.is_file(), f"{where} names {file}"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        assert not function or filter_names(names, function), (where, file, function)
