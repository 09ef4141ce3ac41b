"""The demo's report: accuracy by language, sparsity, and five words with their alternatives."""

import argparse
import json
import math
from pathlib import Path
from typing import Iterable, List

from fairseq_entmax.analysis import Sentence, read_generation
from fairseq_entmax.data.files import write_lines

LANGUAGES = {"<de>": "German nouns", "<ru>": "Russian verbs"}


def share(values: Iterable[bool]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def validation_support(path: Path) -> float:
    """The mean number of characters with p > 0, from fairseq-validate's last log line."""
    found = [
        line for line in path.read_text(encoding="utf-8").splitlines() if '"test_support"' in line
    ]
    if not found:
        raise SystemExit(f"{path}: fairseq-validate logged no support")
    last = found[-1]
    return float(json.loads(last[last.index("{") :])["test_support"])


def accuracy_table(sentences: List[Sentence]) -> List[str]:
    rows = [
        "| language | words | exact match | whole distribution in the beam |",
        "| --- | ---: | ---: | ---: |",
    ]
    for tag, name in LANGUAGES.items():
        group = [s for s in sentences if tag in s.source]
        correct = share(s.correct for s in group)
        exhausted = share(s.exhausted for s in group)
        rows.append(f"| {name} | {len(group)} | {correct:.1%} | {exhausted:.1%} |")
    return rows


def examples(sentences: List[Sentence], count: int = 5) -> List[str]:
    """Words where the model hesitates between few strings and knows that there are no others."""
    torn = [s for s in sentences if s.exhausted and 2 <= len(s.candidates) <= 4]
    torn.sort(key=lambda s: s.candidates[0].log_prob)
    step = max(1, len(torn) // count)
    lines = []
    for sentence in torn[::step][:count]:
        tags = [symbol for symbol in sentence.source if symbol.startswith("<")]
        letters = [symbol for symbol in sentence.source if not symbol.startswith("<")]
        answer = "".join(sentence.target)
        lines.append(
            f"- {''.join(letters)} {' '.join(t.strip('<>') for t in tags)} (answer: {answer})"
        )
        for candidate in sentence.candidates:
            mark = " <-" if candidate.tokens == sentence.target else ""
            lines.append(
                f"    {math.exp(candidate.log_prob):7.2%}  {''.join(candidate.tokens)}{mark}"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("generated", type=Path, help="output of fairseq-generate with --nbest")
    parser.add_argument("validated", type=Path, help="JSON log of fairseq-validate on test")
    parser.add_argument("report", type=Path, help="Markdown file to write")
    parser.add_argument("page", type=Path, help="HTML of the same model, to be named")
    args = parser.parse_args()

    sentences = read_generation(args.generated)
    accuracy = share(s.correct for s in sentences)
    exact = share(s.exhausted for s in sentences)
    support = validation_support(args.validated)
    lines = [
        "# Morphological inflection with 1.5-entmax attention and output",
        "",
        *accuracy_table(sentences),
        "",
        f"All words: exact match {accuracy:.1%}; on average {support:.2f} of the characters have",
        f"p > 0 at a step; for {exact:.1%} of the words the beam held every string with p > 0, so",
        "the search was exact.",
        "",
        "## All that the model considers possible",
        "",
        "Every string with p > 0 is listed; the arrow marks the answer.",
        "",
        "```",
        *examples(sentences),
        "```",
    ]
    write_lines(args.report, lines)
    print("\n".join(lines))
    print(
        f"\ndemo: accuracy={accuracy:.4f} support={support:.3f} exact={exact:.4f} "
        f"report={args.page}"
    )


if __name__ == "__main__":
    main()
