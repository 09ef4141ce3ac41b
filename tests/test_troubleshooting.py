"""docs/troubleshooting.md knows each error message of the package, and none that is not there."""

import ast
import re

import pytest

from .messages import GAP, PACKAGE, literal, messages, raised

PAGE = PACKAGE.parent / "docs" / "troubleshooting.md"
OF_OTHERS = "## First"  # a section of messages that are not ours
ROWS = [
    line
    for section in re.split(r"(?m)^(?=## )", PAGE.read_text(encoding="utf-8"))
    if not section.startswith(OF_OTHERS)
    for line in section.splitlines()
    if line.startswith("| `")
]
KINDS = sorted({kind for row in ROWS for kind in re.findall(r"`([^`]+)`", row.split(" | ")[0])})


def pattern(kind):
    """A gap of the page stands for anything."""
    return re.compile(".*".join(map(re.escape, kind.replace("`", "").split(GAP))))


def is_known(text):
    return any(pattern(kind).fullmatch(text.replace("`", "")) for kind in KINDS)


def test_each_message_is_on_the_page():
    found = messages()
    assert len(found) > 200
    assert not [message for message in found if not is_known(message.text)]


def test_each_kind_is_said_somewhere():
    texts = {
        text.replace("`", "")
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for text in [literal(node)]
        if text
    }
    said = {*texts, *(message.text.replace("`", "") for message in messages())}
    # a message that is put together elsewhere is known by its longest piece
    loose = {kind: max(re.split(r"\.\.\.|%\w", kind), key=len).strip() for kind in KINDS}
    assert not [
        kind
        for kind, piece in loose.items()
        if not any(pattern(kind).fullmatch(text) or piece in text for text in said)
    ]


def test_each_row_has_a_cause_and_a_cure():
    assert all(
        len([c for c in re.split(r"(?<!\\) \| ", row) if c.strip(" |")]) == 3 for row in ROWS
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise ValueError('plain')", ["plain"]),
        ("raise ValueError(f'got {x!r}' ' of' + f(y))", ["got ... of..."]),
        ("raise ValueError(reason)", []),
        ("raise KeyError(3)\nraise SystemExit", []),
        ("def f():\n    raise OSError(f'{a}: no lines') from None", ["...: no lines"]),
    ],
)
def test_the_reader_reads(source, expected):
    assert [text for _, text in raised(source)] == expected


def test_what_is_missing_is_found():
    assert not is_known("a message that nobody has written down")
