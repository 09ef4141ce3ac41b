"""The error messages of the package, read from its syntax trees."""

import ast
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional

PACKAGE = Path(__file__).resolve().parent.parent / "fairseq_entmax"
GAP = "..."  # stands for what is filled in


class Message(NamedTuple):
    """What one ``raise`` says, and where."""

    where: str
    text: str


def messages() -> List[Message]:
    """Every message that is written where it is raised."""
    return [
        Message(f"{path.relative_to(PACKAGE)}:{line}", text)
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in raised(path.read_text(encoding="utf-8"))
    ]


def raised(source: str) -> Iterator[tuple]:
    """(line, message) of each ``raise Error("...")``, with a gap for all that is not literal."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            text = literal(node.exc.args[0])
            if text is not None and text.strip(" .:"):
                yield node.lineno, text


def literal(node: ast.AST) -> Optional[str]:
    """The text of a string, an f-string or a sum of them; None for a number."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [p.value if isinstance(p, ast.Constant) else GAP for p in node.values]
        return "".join(parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return "".join(literal(side) or GAP for side in (node.left, node.right))
    return GAP
