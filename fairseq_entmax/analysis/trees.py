"""A tree of strings, laid out: where each branch stands, and what is written on it."""

import math
import unicodedata
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from .segmentation import joined

_GAP, _LEAST = 3, 2  # columns beside each label, and of one that is empty or short
END = "</s>"


class Branch(NamedTuple):
    """One branch of the tree: the tokens between two places where strings part.

    Attributes:
        label: its tokens, as a person reads them; empty where the string ends at once.
        prob: the probability of these tokens after what stands before them.
        mass: the probability of all strings through here.
        start, end: columns, in widths of a character.
        top: the row of its parent; row: its own, leaves being 0, 1, 2, ... from above.
        leaf: the whole string, where it ends; else None.
        answer: the string of the answer goes through here.
    """

    label: str
    prob: float
    mass: float
    start: float
    end: float
    top: float
    row: float
    leaf: Optional[str]
    answer: bool


def width(text: str) -> int:
    """Columns that a text takes: two for wide characters, none for combining ones.

    Example:
        >>> width("Haus"), width("家"), width("e\\u0301")
        (4, 2, 1)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def percent(share: float) -> str:
    """A probability as people read it; only 0 and 1 themselves are written as such.

    Example:
        >>> percent(0.98765), percent(0.00012), percent(0.0), percent(1.0), percent(0.99999)
        ('98.8%', '0.012%', '0%', '100%', '>99.9%')
    """
    if 0 < share < 1e-5:
        return "<0.001%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{100 * share:.{3 if share >= 0.01 else 2}g}%"


def layout(tree: Dict[str, Any], answer: Sequence[str] = ()) -> List[Branch]:
    """The branches of a tree, parents first.

    Args:
        tree: of :func:`fairseq_entmax.decoding.report.search_tree`.
        answer: the tokens of the string to be marked, without EOS.

    Raises:
        ValueError: it has no string.
    """
    if not tree["children"]:
        raise ValueError("no string with p > 0 was found: there is no tree to draw")
    branches: List[Branch] = []
    rows = _rows(tree)
    wanted = [*answer, END] if answer else []
    open_nodes = [(tree, [], 0.0, rows[id(tree)], True)]
    while open_nodes:
        node, before, column, top, marked = open_nodes.pop()
        for child in node["children"]:
            chain = _chain(child)
            tokens = [link["token"] for link in chain]
            path, last = before + tokens, chain[-1]
            label = _label(tokens)
            end = column + max(width(label), _LEAST) + _GAP
            leaf = None if last["children"] else joined(path[:-1])
            answered = marked and bool(wanted) and path == wanted[: len(path)]
            prob = math.exp(sum(link["log_prob"] for link in chain))
            places = (column, end, top, rows[id(last)])
            branches.append(Branch(label, prob, last["mass"], *places, leaf, answered))
            open_nodes.append((last, path, end, rows[id(last)], answered))
    return branches


def _chain(node: Dict[str, Any]) -> List[Dict[str, Any]]:
    """A node and what follows it up to the next parting of ways."""
    chain = [node]
    while len(chain[-1]["children"]) == 1:
        chain.append(chain[-1]["children"][0])
    return chain


def _label(tokens: List[str]) -> str:
    return joined([token for token in tokens if token != END])


def _rows(tree: Dict[str, Any]) -> Dict[int, float]:
    """The row of every node by its id: leaves in order, others amid their children."""
    rows: Dict[int, float] = {}
    todo = [(tree, False)]
    n_leaves = 0
    while todo:
        node, seen = todo.pop()
        children = node["children"]
        if not children:
            rows[id(node)] = n_leaves
            n_leaves += 1
        elif seen:
            rows[id(node)] = (rows[id(children[0])] + rows[id(children[-1])]) / 2
        else:
            todo.append((node, True))
            todo += [(child, False) for child in reversed(children)]
    return rows
