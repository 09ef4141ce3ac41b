"""Strings of a configuration are read as literals, never run.

fairseq evaluates strings of the checkpoint's own configuration when it builds a model, with
Python's ``eval``: directly in some models, through ``utils.eval_bool`` and its like in others. A
module's global ``eval`` hides the builtin, so each of fairseq's modules gets :func:`literal`.
"""

import ast
import dis
import importlib.abc
import importlib.machinery
import operator
import os
import sys
from typing import Any, Callable, Dict

import fairseq
import fairseq_cli
from fairseq import utils
from fairseq.models import fconv

from .repairs import repair
from .wrapping import wrap

MAX_CHARACTERS = 100_000  # a deeper nesting would overflow the stack of Python 3.10
MAX_ITEMS = 100_000  # of a product or sum of lists
MAX_BITS = 4096  # of a power

_SIGNS: Dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_ARITHMETIC: Dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def literal(source: Any, *namespaces: Any) -> Any:
    """``eval`` for numbers, strings, True, None, tuples, lists, dicts, arithmetic with numbers,
    and sums and multiples of lists, such as ``[(512, 3)] * 4 + [(1024, 3)] * 2``.

    Args:
        source: text of at most 100,000 characters.
        namespaces: as eval's; a literal has no names.

    Raises:
        TypeError: not a string (``utils.eval_bool`` counts on it).
        ValueError: anything else than such a literal; nothing was executed.

    Example::

        >>> literal("[(512, 3)] * 2 + [(1024, 3)]")
        [(512, 3), (512, 3), (1024, 3)]
    """
    if not isinstance(source, str):
        raise TypeError(f"eval() arg 1 must be a string, got {type(source).__name__}")
    try:
        if len(source) > MAX_CHARACTERS:
            raise ValueError("too long")
        return _value(ast.parse(source.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError) as e:
        shown = source if len(source) <= 80 else source[:77] + "..."
        raise ValueError(
            f"refused to evaluate the setting {shown!r} ({type(e).__name__}): it must be a literal "
            "such as 0.1, True, (0.9, 0.98) or [(512, 3)] * 20. Nothing was executed."
        ) from None


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.Constant) and node.value is not Ellipsis:
        return node.value
    if isinstance(node, ast.Tuple):
        return tuple(map(_value, node.elts))
    if isinstance(node, ast.List):
        return list(map(_value, node.elts))
    if isinstance(node, ast.Set):
        return set(map(_value, node.elts))
    if isinstance(node, ast.Dict) and None not in node.keys:
        return dict(zip(map(_value, node.keys), map(_value, node.values)))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _SIGNS:
        return _SIGNS[type(node.op)](_number(_value(node.operand)))
    if isinstance(node, ast.BinOp):
        return _combine(node.op, _value(node.left), _value(node.right))
    raise ValueError(f"{type(node).__name__} is no literal")


def _number(value: Any) -> Any:
    if not isinstance(value, (int, float)):
        raise TypeError("arithmetic is for numbers")
    return value


def _combine(op: ast.AST, left: Any, right: Any) -> Any:
    lists = isinstance(left, (list, tuple)) or isinstance(right, (list, tuple))
    if lists and isinstance(op, (ast.Add, ast.Mult)):
        size = _items(left) * right if isinstance(right, int) else _items(right)
        size = left * size if isinstance(left, int) else size + _items(left)
        if size > MAX_ITEMS:
            raise ValueError("too many items")
        return _ARITHMETIC[type(op)](left, right)
    _number(left), _number(right)
    if isinstance(op, ast.Pow):
        if isinstance(left, int) and abs(left).bit_length() * right > MAX_BITS:
            raise OverflowError("too large a number")
        return left**right
    if type(op) not in _ARITHMETIC:
        raise ValueError("no arithmetic")
    return _ARITHMETIC[type(op)](left, right)


def _items(value: Any) -> int:
    """The number of values in nested containers."""
    if isinstance(value, dict):
        return sum(map(_items, value.values())) + 1
    if isinstance(value, (list, tuple, set)):
        return sum(map(_items, value)) + 1
    return 1


# --- where it is used ---------------------------------------------------------------------------

_FOLDERS = tuple(
    os.path.join(os.path.abspath(folder), "")
    for package in (fairseq, fairseq_cli)
    for folder in package.__path__
)


class _Finder(importlib.abc.MetaPathFinder):
    """Gives the modules of fairseq their ``eval`` before they run."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if not name.startswith(("fairseq.", "fairseq_cli.")):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            module.eval = literal
            run(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _hand_out() -> None:
    """Give every module whose file is fairseq's, under whatever name, its ``eval``."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and os.path.abspath(file).startswith(_FOLDERS):
            module.__dict__.setdefault("eval", literal)


def _runs_strings() -> bool:
    try:
        if utils.eval_bool("len('a')"):
            return True
    except ValueError:
        pass
    build = fconv.FConvModel.build_model.__func__
    called = [i.argval for i in dis.get_instructions(build) if i.opname == "LOAD_GLOBAL"]
    return "eval" in called and "eval" not in vars(fconv)


@repair(_runs_strings)
def evaluate_literals_only() -> None:
    """Read the strings of a configuration as literals.

    Fault: ``decoder_attention = "open('file','w')"`` in a checkpoint's configuration is run when
    the model is built, also when the checkpoint itself has passed torch's check.
    Versions: every fairseq. Test: tests/compat/test_hostile.py::test_hostile_config_*,
    tests/compat/test_configs.py::test_*.
    """
    sys.meta_path.insert(0, _Finder())
    _hand_out()

    def import_user_module(original: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)  # may be one of fairseq's examples
        _hand_out()
        return result

    wrap(utils, "import_user_module", import_user_module)
