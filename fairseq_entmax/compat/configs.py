"""Settings are data: fairseq evaluates strings of a checkpoint's own configuration as Python."""

import ast
import operator
import sys
from typing import Any

from fairseq import models

from .repairs import repair, wrap

_LONGEST = 10_000  # entries of a list such as "[(512, 3)] * 20"


def literal(text: Any, *_: Any) -> Any:
    """The value of a Python literal, or of sums and multiples of literals: ``[(512, 3)] * 20``.

    Raises:
        ValueError: it is anything else.
        TypeError: it is no string, as of ``eval``, which fairseq relies on.

    Example::

        >>> literal("[(512, 3)] * 2 + [(1024, 3)]")
        [(512, 3), (512, 3), (1024, 3)]
    """
    if not isinstance(text, str):
        raise TypeError(f"a setting must be a string to be evaluated, got {type(text).__name__}")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError(
            f"refused to evaluate the setting {text[:200]!r}: it must be a number, a string, a "
            "list, a tuple or a dictionary, or multiples and sums of them. Nothing was executed."
        ) from None


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.BinOp):
        return _combined(node, _value(node.left), _value(node.right))
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_value(entry) for entry in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_value(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_value, node.values)))
    if isinstance(node, ast.Expression):
        return _value(node.body)
    return ast.literal_eval(node)


def _combined(node: ast.BinOp, left: Any, right: Any) -> Any:
    numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
    if isinstance(node.op, ast.Add) and (numbers or type(left) is type(right)):
        return operator.add(left, right)
    if isinstance(node.op, ast.Mult):
        sequences = [x for x in (left, right) if isinstance(x, (list, tuple))]
        times = [x for x in (left, right) if isinstance(x, int)]
        if numbers or (sequences and times and len(sequences[0]) * times[0] <= _LONGEST):
            return operator.mul(left, right)
    if isinstance(node.op, ast.Sub) and numbers:
        return operator.sub(left, right)
    raise ValueError("no literal")


@repair()
def evaluate_literals_only() -> None:
    """Let fairseq read settings without running them.

    Fault: ``eval_bool``, ``eval_str_list`` and some forty places in models, optimizers and data
    pass strings to ``eval``, among them those of a checkpoint's own configuration, which a
    checkpoint that is loaded weights-only brings along: ``decoder_attention="open('f', 'w')"``.
    Versions: every fairseq. Test: tests/compat/test_hostile.py::test_hostile_config_*.
    """
    _shadow_eval()

    def build(original: Any, *args: Any, **kwargs: Any) -> Any:
        _shadow_eval()  # of what was imported since
        return original(*args, **kwargs)

    wrap(models, "build_model", build)


def _shadow_eval() -> None:
    """A module's own name goes before the builtin; commands keep theirs for the command line."""
    for name, module in list(sys.modules.items()):
        if module is not None and (name == "fairseq" or name.startswith("fairseq.")):
            module.__dict__["eval"] = literal
