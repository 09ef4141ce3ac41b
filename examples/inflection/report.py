"""Accuracy and Levenshtein distance by language, sparsity, and the last line of run.sh."""

import argparse
import logging
from pathlib import Path
from typing import Dict, Iterable, List

import torch
from fairseq import checkpoint_utils, utils

from fairseq_entmax.analysis import Sentence, measure_sparsity, read_generation
from fairseq_entmax.data.files import write_json, write_lines
from fairseq_entmax.data.symbols import is_language, language_of
from fairseq_entmax.scoring import levenshtein


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def by_language(sentences: List[Sentence], languages: List[str]) -> Dict[str, List[Sentence]]:
    """The sentences of each language, none of which may be without any."""
    groups: Dict[str, List[Sentence]] = {language: [] for language in languages}
    for sentence in sentences:
        groups[language_of(next(filter(is_language, sentence.source)))].append(sentence)
    empty = [language for language, group in groups.items() if not group]
    if empty:
        raise SystemExit(f"no answers for {' '.join(empty)}: is there a file of this split?")
    return groups


def scores(group: List[Sentence]) -> Dict[str, float]:
    return {
        "words": len(group),
        "accuracy": mean(s.correct for s in group),
        "levenshtein": mean(levenshtein(s.candidates[0].tokens, s.target) for s in group),
        "exact": mean(s.certified for s in group),
    }


def sparsity(sentences: List[Sentence], checkpoints: str, data: str, cpu: bool):
    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        utils.split_paths(checkpoints), arg_overrides={"data": data}
    )
    device = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
    return measure_sparsity([model.to(device).eval() for model in models], task, sentences)


def markdown(languages: Dict[str, Dict[str, float]], total: Dict[str, float]) -> List[str]:
    lines = [
        "| language | words | accuracy | Levenshtein | exact |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in {**languages, "mean over languages": total}.items():
        lines.append(
            f"| {name} | {row['words']} | {row['accuracy']:.1%} | {row['levenshtein']:.3f} | "
            f"{row['exact']:.1%} |"
        )
    support, attended = total["support"], total["attended"]
    lines += ["", f"{support:.2f} characters have p > 0 at a step; {attended:.2f} source symbols"]
    lines += ["are attended to."]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("generated", type=Path, help="output of fairseq-generate with --nbest")
    parser.add_argument("data", help="binarised data")
    parser.add_argument("--checkpoints", required=True, help="as --path of fairseq-generate")
    parser.add_argument("--languages", type=Path, required=True, help="a name on each line")
    parser.add_argument("--report", required=True, help="REPORT.md and REPORT.json are written")
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()

    logging.getLogger("fairseq").setLevel(logging.WARNING)
    sentences = read_generation(args.generated, len_penalty=0)
    names = args.languages.read_text(encoding="utf-8").split()
    languages = {name: scores(group) for name, group in by_language(sentences, names).items()}
    sparse = sparsity(sentences, args.checkpoints, args.data, args.cpu)
    total = {"words": len(sentences), "support": sparse.support, "attended": sparse.attended}
    for metric in ("accuracy", "levenshtein"):
        total[metric] = mean(row[metric] for row in languages.values())
    total["exact"] = mean(s.certified for s in sentences)
    write_lines(Path(args.report + ".md"), markdown(languages, total))
    write_json(Path(args.report + ".json"), {"mean": total, "languages": languages})
    print(
        f"inflection: languages={len(languages)} accuracy={total['accuracy']:.4f} "
        f"levenshtein={total['levenshtein']:.4f} support={total['support']:.3f} "
        f"exact={total['exact']:.4f}"
    )


if __name__ == "__main__":
    main()
