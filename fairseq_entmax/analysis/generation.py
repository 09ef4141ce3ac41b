"""Read what fairseq-generate printed, and what a sparse model's beam says about itself."""

import math
from pathlib import Path
from typing import Dict, List, NamedTuple, Union

# float32 log-probabilities of a whole string are off by less than this
_ROUNDING = 1e-5


class Candidate(NamedTuple):
    """One hypothesis: its tokens and log p (natural logarithm, not length-normalised).

    Example::

        >>> math.exp(Candidate(["a", "b"], math.log(0.75)).log_prob)
        0.75
    """

    tokens: List[str]
    log_prob: float


class Sentence(NamedTuple):
    """One input with its reference and its n-best list, best first.

    Example::

        >>> found = [Candidate(["b"], math.log(0.75)), Candidate(["c"], math.log(0.25))]
        >>> sentence = Sentence(0, source=["a"], target=["b"], candidates=found)
        >>> sentence.correct, sentence.exhausted  # nothing else is possible
        (True, True)
    """

    id: int
    source: List[str]
    target: List[str]
    candidates: List[Candidate]

    @property
    def correct(self) -> bool:
        """The best hypothesis is the reference."""
        return self.candidates[0].tokens == self.target

    @property
    def mass(self) -> float:
        """The probability that the n-best list holds."""
        return math.fsum(math.exp(candidate.log_prob) for candidate in self.candidates)

    @property
    def exhausted(self) -> bool:
        """No string outside the list has p > 0 (up to rounding)."""
        return self.mass > 1 - _ROUNDING * len(self.candidates)

    @property
    def certified(self) -> bool:
        """The best hypothesis is the most probable of all strings: each outside the list has at
        most the probability that the list leaves.
        """
        best = self.candidates[0].log_prob
        left = 1 - self.mass + _ROUNDING * len(self.candidates)
        return best == max(c.log_prob for c in self.candidates) and math.exp(best) > left


def read_generation(path: Union[str, Path], len_penalty: float = 1.0) -> List[Sentence]:
    """Sentences of a fairseq-generate output, in the order of the data set.

    Args:
        path: a file with the S-, T- and H-lines of fairseq-generate. Scores are undone of the
            normalisation score = log2 p / (tokens with EOS) ** len_penalty.
        len_penalty: the ``--lenpen`` of the run; 0 for ``--unnormalized``.

    Raises:
        ValueError: a line that is cut off, or a sentence without source or hypothesis.
    """
    lines: Dict[str, Dict[int, List[List[str]]]] = {"S": {}, "T": {}, "H": {}}
    with open(path, encoding="utf-8") as output:
        for number, line in enumerate(output, 1):
            kind, dash, rest = line.rstrip("\n").partition("-")
            if not dash or kind not in lines:
                continue
            fields = rest.split("\t")
            if len(fields) != (3 if kind == "H" else 2) or not fields[0].isdigit():
                raise ValueError(f"{path}, line {number}: not a fairseq-generate line: {line!r}")
            lines[kind].setdefault(int(fields[0]), []).append(fields[1:])
    missing = set(lines["S"]) ^ set(lines["H"])
    if missing or not lines["S"]:
        raise ValueError(
            f"{path}: {len(lines['S'])} sources and {len(lines['H'])} answers do not match "
            f"(first: {min(missing, default='none')}); is the output complete?"
        )
    return [
        Sentence(
            i,
            lines["S"][i][0][0].split(),
            lines["T"].get(i, [[""]])[0][0].split(),
            [_candidate(*hypothesis, len_penalty) for hypothesis in lines["H"][i]],
        )
        for i in sorted(lines["S"])
    ]


def _candidate(score: str, text: str, len_penalty: float) -> Candidate:
    tokens = text.split()
    log_prob = float(score) * math.log(2) * (len(tokens) + 1) ** len_penalty
    return Candidate(tokens, log_prob)
