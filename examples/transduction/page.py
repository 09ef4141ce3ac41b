"""What a report looks like: the page for people, and the closing line."""

from typing import Any, Dict, List

Row = Dict[str, Any]
SHOWN = ("accuracy", "wer", "per", "cer", "f1", "levenshtein")
PROOFS = ("exact", "unique", "unique_accuracy")


def markdown(report: Row) -> List[str]:
    """The tables of a report.

    Args:
        report: ``mean`` (name: value and interval), ``total``, ``languages``, ``abstain``, and
            ``conformal``.
    """
    names = [name for name in SHOWN if name in report["mean"]]
    parts = (_languages, _means, _abstaining, _coverage)
    return [line for part in parts for line in [*part(report, names), ""]][:-1]


def _languages(report: Row, names: List[str]) -> List[str]:
    head = ["words", *names, *PROOFS]
    lines = [f"| language | {' | '.join(head)} |", "| --- |" + " ---: |" * len(head)]
    for language, row in report["languages"].items():
        cells = [str(row["words"]), *(f"{row[name]:.2f}" for name in names)]
        cells += [f"{row[name]:.1%}" if row[name] == row[name] else "-" for name in PROOFS]
        lines.append(f"| {language} | {' | '.join(cells)} |")
    return lines


def _means(report: Row, names: List[str]) -> List[str]:
    lines = ["Means over languages, with 95% bootstrap intervals:", ""]
    for name in names:
        (low, high), value = report["mean"][name]["interval"], report["mean"][name]["value"]
        lines.append(f"- {name} {value:.2f} [{low:.2f}, {high:.2f}]")
    return lines


def _abstaining(report: Row, names: List[str]) -> List[str]:
    row = report["abstain"]
    return [
        f"Answers that are the only possible one, or proven with p >= {row['threshold']}: "
        f"{row['given']:.1%}, of which {row['accuracy']:.2%} are right."
    ]


def _coverage(report: Row, names: List[str]) -> List[str]:
    if not report["conformal"]["levels"]:
        return ["A softmax output: every string is possible, there are no sets to choose."]
    lines = [
        "| coverage asked | temperature | on held-back halves | sets listed whole | strings |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in report["conformal"]["levels"].items():
        checked = f"{row['mean']:.2%} ({row['low']:.1%} to {row['high']:.1%})"
        rest = "none: too few words, or too many that cannot be written | {} | |"
        if "temperature" in row:
            rest = f"{row['temperature']:.4f} | {{}} | {row['complete']:.1%} | {row['size']:g}"
        lines.append(f"| {name}% | {rest.format(checked)} |")
    return lines


def closing_line(task: str, report: Row) -> str:
    """The last line of run.sh; accuracy, f1 and shares out of 1, rates in percent."""
    mean, total = report["mean"], report["total"]

    def value(name: str) -> float:
        return mean[name]["value"] if name in mean else float("nan")

    return (
        f"transduction: task={task} languages={len(report['languages'])} "
        f"accuracy={value('accuracy') / 100:.4f} wer={value('wer'):.2f} per={value('per'):.2f} "
        f"f1={value('f1') / 100:.4f} levenshtein={value('levenshtein'):.4f} "
        f"support={total['support']:.3f} exact={total['exact']:.4f} "
        f"unique={total['unique']:.4f} unique_accuracy={total['unique_accuracy']:.4f}"
    )
