"""Gathers the folder of the models, answers a split with it, and scores what it answered."""

import argparse
import logging
import math
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import page

from fairseq_entmax.analysis import Sentence, measure_sparsity
from fairseq_entmax.analysis.generation import Candidate
from fairseq_entmax.data.files import write_json, write_lines
from fairseq_entmax.data.transduction import Item
from fairseq_entmax.decoding.everywhere import output_alpha_of
from fairseq_entmax.scoring.counts import count, intervals, is_segmented, macro, rates
from fairseq_entmax.transduction import Answer, Transducer, conformal, folder
from fairseq_entmax.transduction.abstention import area, risk_coverage
from fairseq_entmax.transduction.predict import output_fields
from fairseq_entmax.transduction.transducer import UNIQUE

Row = Dict[str, Any]
SETS = 300  # words whose sets of possible strings are listed, to tell how large they are
SET_BEAM = 20


def read_items(path: Path) -> List[Item]:
    with open(path, encoding="utf-8", newline="\n") as file:
        return [Item(*line.rstrip("\n").split("\t")) for line in file]


def share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else math.nan


class Report:
    """The answers to a split, and everything that is said of them."""

    def __init__(self, items: List[Item], answers: List[Answer], transducer: Transducer) -> None:
        self.items, self.answers, self.transducer = items, answers, transducer
        spelling = transducer.spelling
        self.references = [spelling.style.target_symbols(item) for item in items]
        self.given = [spelling.target_symbols(answer.tokens) for answer in answers]
        segmented = any(map(is_segmented, self.references))
        pairs = zip(self.references, self.given)
        self.rows = np.array([count(*pair, segmented) for pair in pairs])
        names = dict.fromkeys(item.language for item in items)
        own = {name: [i for i, item in enumerate(items) if item.language == name] for name in names}
        self.groups = own
        self.right = [answer.text == item.target for item, answer in zip(items, answers)]

    def scores(self) -> Tuple[Row, Dict[str, Row]]:
        """The means over languages with their intervals, and each language."""
        groups = [self.rows[places] for places in self.groups.values()]
        sums = np.array([rows.sum(axis=0) for rows in groups])
        around = intervals(groups)
        means = macro(sums)
        mean = {name: {"value": means[name], "interval": around[name]} for name in around}
        languages = {
            name: {**rounded(rates(row)), **self.proofs(places)}
            for name, row, places in zip(self.groups, sums, self.groups.values())
        }
        return mean, languages

    def proofs(self, places: Sequence[int]) -> Row:
        unique = [i for i in places if self.answers[i].verdict == UNIQUE]
        return {
            "words": len(places),
            "exact": share([self.answers[i].verdict in (UNIQUE, "proven") for i in places]),
            "unique": len(unique) / len(places),
            "unique_accuracy": share([self.right[i] for i in unique]),
        }

    def abstaining(self, threshold: float) -> Row:
        given = [i for i, answer in enumerate(self.answers) if answer.is_given(threshold)]
        confidence = [(a.probability, right) for a, right in zip(self.answers, self.right)]
        points = risk_coverage(confidence)
        return {
            "threshold": threshold,
            "given": len(given) / len(self.answers),
            "accuracy": share([self.right[i] for i in given]),
            "area": area(points),
            "risk_coverage": [list(point) for point in points],
        }

    def sparsity(self) -> Any:
        sentences = [
            Sentence(i, self.transducer.spelling.source_tokens(item), [], [Candidate(a.tokens, 0)])
            for i, (item, a) in enumerate(zip(self.items, self.answers))
            if a.tokens
        ]
        return measure_sparsity(self.transducer.models, self.transducer.task, sentences)

    def predictions(self, out: Path, threshold: float) -> None:
        """A table for each language: its columns, the answer in place of the target, and proofs."""
        for name, places in self.groups.items():
            lines = []
            for i in places:
                item, answer = self.items[i], self.answers[i]
                kept = [x for x in (item.features, item.category) if x]
                verdict = ["given" if answer.is_given(threshold) else "withheld"]
                fields = output_fields(answer)
                lines.append("\t".join([item.source, fields[0], *kept, *verdict, *fields[1:]]))
            write_lines(out / f"{name}.tsv", lines)


def rounded(values: Dict[str, Any]) -> Row:
    return {name: round(float(value), 4) for name, value in values.items() if value == value}


def calibrate(model: Path, dev: List[Item], transducer: Transducer) -> Row:
    """Temperatures for coverage into the folder, and what they are worth; softmax has none, every
    string is possible at any.
    """
    if any((output_alpha_of(one) or 1) == 1 for one in transducer.models):
        return {"words": len(dev), "levels": {}}
    critical = conformal.word_temperatures(transducer, dev)
    found: Row = {"words": len(dev), "possible": share([t < 1 for t in critical]), "levels": {}}
    kept: Dict[str, float] = {}
    shown = dev[:: max(1, len(dev) // SETS)]
    for level in conformal.LEVELS:
        name, temperature = f"{100 * level:g}", conformal.temperature_for(critical, level)
        row = conformal.check_on_halves(critical, level)._asdict()
        if math.isfinite(temperature):
            kept[name] = temperature
            wide = Transducer(model, SET_BEAM, temperature, transducer.device.type == "cpu")
            answers = wide.answers(shown)
            row["temperature"] = temperature
            row["complete"] = share([a.complete for a in answers])
            row["size"] = float(np.median([len(a.candidates) for a in answers]))
        found["levels"][name] = row
    folder.write_settings(model, transducer.settings._replace(coverage=kept))
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("items", type=Path, help="SPLIT.tsv as prepared")
    parser.add_argument("model", type=Path, help="folder to gather the models in")
    parser.add_argument("--data", type=Path, required=True, help="binarised data")
    parser.add_argument("--checkpoints", type=Path, nargs="+", required=True)
    parser.add_argument("--dev", type=Path, required=True, help="dev.tsv, for the temperatures")
    parser.add_argument("--task", required=True, help="its name")
    parser.add_argument("--split", required=True)
    parser.add_argument("--beam", type=int, required=True)
    parser.add_argument("--abstain", type=float, required=True)
    parser.add_argument("--cpu", action="store_true")
    return parser.parse_args()


def score(report: Report, dev: List[Item], args: argparse.Namespace) -> Row:
    """All numbers of a report."""
    mean, languages = report.scores()
    sparse = report.sparsity()
    total = report.proofs(range(len(report.items)))
    return {
        "mean": mean,
        "total": {**total, "support": sparse.support, "attended": sparse.attended},
        "languages": languages,
        "abstain": report.abstaining(args.abstain),
        "conformal": calibrate(args.model, dev, report.transducer),
    }


def write(out: Path, name: str, scores: Row) -> None:
    points = scores["abstain"].pop("risk_coverage")
    lines = ["\t".join(f"{x:.6f}" for x in point) for point in points]
    write_lines(out / f"{name}-risk-coverage.tsv", ["confidence\tcoverage\trisk", *lines])
    write_lines(out / f"{name}-report.md", page.markdown(scores))
    write_json(out / f"{name}-report.json", scores)


def main() -> None:
    args = arguments()
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    items, dev = read_items(args.items), read_items(args.dev)
    languages = tuple(dict.fromkeys(item.language for item in dev))
    settings = folder.Settings(args.task, languages, args.beam)
    folder.write(args.model, args.data, args.checkpoints, settings)
    transducer = Transducer(args.model, cpu=args.cpu)
    report = Report(items, transducer.answers(items), transducer)
    out = args.model.parent
    predictions = out / f"predictions-{args.split}"
    predictions.mkdir(exist_ok=True)
    report.predictions(predictions, args.abstain)
    without = sum(not item.target for item in items)
    if without:
        print(
            f"transduction: task={args.task} predictions={len(items)} folder={predictions}, no "
            f"accuracy: {without} words have no target to compare with"
        )
        return
    scores = score(report, dev, args)
    write(out, f"{args.split}-beam{args.beam}-models{len(args.checkpoints)}", scores)
    print(page.closing_line(args.task, scores))


if __name__ == "__main__":
    main()
