"""Certificates on paper: a line for each sentence, a summary, and the strings as a tree."""

import json
import math
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence

from fairseq.data import Dictionary

from fairseq_entmax.data.files import unfinished, write_json

from .certificate import Certificate
from .mbr import Decision

Row = Dict[str, Any]


def x_line(sentence: int, certificate: Certificate) -> str:
    """``X-<id>`` and tab-separated ``key=value``; logarithms have base 2, as everywhere in
    fairseq-generate's output.
    """
    values = certificate._asdict()
    values["bound"] /= math.log(2)
    return "\t".join([f"X-{sentence}", *(f"{key}={_text(x)}" for key, x in values.items())])


def u_line(sentence: int, decision: Decision) -> str:
    """``U-<id>`` and the numbers of a choice by minimum Bayes risk."""
    values = decision._asdict().items()
    return "\t".join([f"U-{sentence}", *(f"{key}={_text(x)}" for key, x in values)])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)


def summary(certificates: Iterable[Certificate]) -> Row:
    """Shares and means over sentences.

    Returns:
        ``sentences``, and as shares of them: ``exact`` (the first hypothesis is proven the best),
        ``optimum`` (the most probable string is proven to be in the list), ``complete`` (the list
        is the whole distribution), ``nothing`` (no string with p > 0 was found); means of ``mass``,
        ``pruned`` and ``expansions``; ``support``, the mean over all prefixes; ``empty``, the share
        of sentences where the empty string has p > 0, None where it was not allowed.
    """
    rows = list(certificates)
    n = max(len(rows), 1)
    expansions = sum(c.expansions for c in rows)
    empty = [c.empty for c in rows if c.empty is not None]
    return {
        "sentences": len(rows),
        "exact": sum(c.exact for c in rows) / n,
        "optimum": sum(c.proven > 0 for c in rows) / n,
        "complete": sum(c.complete for c in rows) / n,
        "nothing": sum(c.mass == 0 for c in rows) / n,
        "mass": math.fsum(c.mass for c in rows) / n,
        "pruned": math.fsum(c.pruned for c in rows) / n,
        "expansions": expansions / n,
        "support": math.fsum(c.support * c.expansions for c in rows) / max(expansions, 1),
        "empty": sum(p > 0 for p in empty) / len(empty) if empty else None,
    }


def utility_summary(decisions: Sequence[Decision]) -> Row:
    """Means over sentences of ``utility``, of the beam's ``beam_utility``, and of ``mass_listed``;
    ``changed``, the share of other answers than the beam's; ``sampled``, the share of sentences
    decided by samples. Nothing without decisions.
    """
    n = len(decisions)
    if not n:
        return {}
    return {
        "utility": math.fsum(d.expected for d in decisions) / n,
        "beam_utility": math.fsum(d.beam for d in decisions) / n,
        "changed": sum(d.expected != d.beam for d in decisions) / n,
        "mass_listed": math.fsum(d.mass for d in decisions) / n,
        "sampled": sum(d.sampled for d in decisions) / n,
    }


def strings(hypotheses: List[Dict[str, Any]], words: Dictionary) -> List[Row]:
    """``{"text", "log_prob"}`` of every hypothesis with p > 0, natural logarithms."""
    return [
        {
            "text": " ".join(_symbols(h, words)[:-1]),
            "log_prob": float(h["positional_scores"].double().sum()),
        }
        for h in hypotheses
        if h["score"] > -math.inf
    ]


def search_tree(hypotheses: List[Dict[str, Any]], words: Dictionary) -> Row:
    """The prefixes of the hypotheses as a tree, for drawing.

    A node is ``{"token", "log_prob", "mass", "children"}``: log p(token | prefix), the probability
    of the hypotheses below it, and its continuations by falling mass. The root has no token; a leaf
    is EOS.
    """
    root: Row = {"token": None, "log_prob": 0.0, "mass": 0.0, "children": {}}
    for hypothesis in hypotheses:
        if not hypothesis["score"] > -math.inf:
            continue
        log_probs = hypothesis["positional_scores"].double()
        mass = math.exp(float(log_probs.sum()))
        node = root
        node["mass"] += mass
        for token, log_prob in zip(_symbols(hypothesis, words), log_probs.tolist()):
            fresh = {"token": token, "log_prob": log_prob, "mass": 0.0, "children": {}}
            node = node["children"].setdefault(token, fresh)
            node["mass"] += mass
    return _as_lists(root)


def _as_lists(root: Row) -> Row:
    """Children as lists, by falling mass; without recursion, for strings may be long."""
    open_nodes = [root]
    while open_nodes:
        node = open_nodes.pop()
        node["children"] = sorted(node["children"].values(), key=lambda child: -child["mass"])
        open_nodes += node["children"]
    return root


def _symbols(hypothesis: Dict[str, Any], words: Dictionary) -> List[str]:
    return [words[token] for token in hypothesis["tokens"].tolist()]


class SearchLog:
    """Where the certificates of a run go.

    Args:
        lines: print a line for each sentence, to stdout also under ``--results-path``.
        report: file for the summary (JSON); rewritten after every batch, so that it is right
            whenever the run ends.
        tree: file for strings and trees, one JSON object in each line; it has the ending ``.part``
            until the run has ended.
    """

    def __init__(
        self, lines: bool, report: Optional[str], tree: Optional[str], settings: Row, words: Any
    ) -> None:
        self.lines, self.settings, self.words = lines, settings, words
        self.report = Path(report) if report else None
        self.tree = Path(tree) if tree else None
        self.certificates: List[Certificate] = []
        self.decisions: List[Decision] = []
        for path in (self.report, self.tree):
            if path is not None and not path.parent.is_dir():
                raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
            if path is not None and path.is_dir():
                raise ValueError(f"cannot write {path}: it is a folder, name a file in it")
        if self.tree:
            unfinished(self.tree).write_text("", encoding="utf-8")

    def add(self, ids: List[int], sentences: List[List[Dict[str, Any]]]) -> None:
        """Book a batch: the numbers of its sentences, and the hypotheses of each."""
        found = [hypotheses[0]["certificate"] for hypotheses in sentences]
        self.certificates += found
        decided = [
            (i, hypotheses[0]["decision"])
            for i, hypotheses in zip(ids, sentences)
            if "decision" in hypotheses[0]
        ]
        self.decisions += [decision for _, decision in decided]
        if self.lines:
            lines = [*(x_line(*pair) for pair in zip(ids, found)), *(u_line(*d) for d in decided)]
            print("".join(line + "\n" for line in lines), end="")
        if self.tree:
            with open(unfinished(self.tree), "a", encoding="utf-8") as file:
                for i, hypotheses, certificate in zip(ids, sentences, found):
                    file.write(json.dumps(self._drawing(i, hypotheses, certificate)) + "\n")
        if self.report:
            write_json(self.report, {**self.settings, **self._summary()})

    def _summary(self) -> Row:
        return {**summary(self.certificates), **utility_summary(self.decisions)}

    def _drawing(self, i: int, hypotheses: List[Dict[str, Any]], certificate: Certificate) -> Row:
        return {
            "id": i,
            "certificate": {**certificate._asdict(), "bound": _finite(certificate.bound)},
            "strings": strings(hypotheses, self.words),
            "tree": search_tree(hypotheses, self.words),
        }

    def finish(self) -> None:
        """Print the summary and give the tree its name."""
        if self.tree and unfinished(self.tree).exists():
            unfinished(self.tree).replace(self.tree)
        if self.certificates:
            values = "\t".join(f"{k}={_text(v)}" for k, v in self._summary().items())
            print(f"Search\t{values}")


def _finite(value: float) -> Optional[float]:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
