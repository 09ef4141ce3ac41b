"""What search finds and misses, for models and beams: exact, proven, complete, search errors."""

import argparse
import os
from typing import List

from fairseq import utils

from fairseq_entmax.analysis.search import Inputs, Row, analyse, table
from fairseq_entmax.data.files import write_json

from . import shared

_EXAMPLE = "demo/bin --model demo=demo/checkpoints/checkpoint_best.pt --beam 1 5"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("search", __doc__, _EXAMPLE)
    made.add_argument("data", help="folder that fairseq-preprocess wrote")
    shared.add_named_models(made)
    made.add_argument("--beam", nargs="+", type=shared.at_least_one, default=[1, 5, 10])
    made.add_argument("--subset", default="test")
    made.add_argument("--languages", nargs=2, default=[], metavar=("SOURCE", "TARGET"))
    made.add_argument("--sentences", type=shared.at_least_one, default=200, help="(default: 200)")
    made.add_argument("--batch-size", type=shared.at_least_one, default=64)
    made.add_argument(
        "--max-len-b", type=shared.at_least_one, default=50, help="source length + this"
    )
    made.add_argument("--max-expansions", type=shared.at_least_one, default=2000)
    made.add_argument("--strings", type=shared.at_least_one, default=1000, help="count no further")
    shared.add_cpu(made)
    shared.add_json(made, "the rows")
    return made


def main(arguments: List[str]) -> None:
    """Prints the table, and writes ``--json``, rewritten after each model."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    for name, paths in args.model:
        missing = [path for path in utils.split_paths(paths) if not os.path.isfile(path)]
        if missing:
            raise ValueError(f"--model {name}: there is no file {missing[0]}")
    inputs = Inputs(args.data, args.subset, args.languages, args.sentences, args.cpu)
    rows: List[Row] = []
    for name, paths in args.model:
        for row in analyse(inputs, inputs.models(paths), args.beam, args):
            rows.append({"model": name, **row})
        if args.json:
            write_json(args.json, rows)
    print(table(rows))
