"""What answering less often is worth: risk and coverage."""

from typing import List, NamedTuple, Sequence, Tuple

_POINTS = 200


class Point(NamedTuple):
    """Answers of at least this confidence."""

    confidence: float
    coverage: float  # share of the words that are answered
    risk: float  # share of wrong ones among the answers


def risk_coverage(answers: Sequence[Tuple[float, bool]]) -> List[Point]:
    """Risk among the most confident answers, from few to all.

    risk(t) = wrong answers of confidence >= t / answers of confidence >= t

    Args:
        answers: (confidence, correct) of each word.

    Returns:
        At each confidence that occurs, falling; at most 200 points, the first and last among them.

    Source:
        El-Yaniv and Wiener (2010).

    Example:
        >>> risk_coverage([(0.9, True), (0.5, False)])[-1]
        Point(confidence=0.5, coverage=1.0, risk=0.5)
    """
    points, wrong = [], 0
    ordered = sorted(answers, key=lambda answer: -answer[0])
    for n, (confidence, correct) in enumerate(ordered, 1):
        wrong += not correct
        if (
            n == len(ordered) or ordered[n][0] != confidence
        ):  # those of one confidence come together
            points.append(Point(confidence, n / len(ordered), wrong / n))
    if len(points) <= _POINTS:
        return points
    chosen = {round(i * (len(points) - 1) / (_POINTS - 1)) for i in range(_POINTS)}
    return [points[i] for i in sorted(chosen)]


def area(points: Sequence[Point]) -> float:
    """The area under the steps of risk over coverage: the mean risk, less is better."""
    total, before = 0.0, 0.0
    for point in points:
        total += point.risk * (point.coverage - before)
        before = point.coverage
    return total
