"""A page in the browser that answers what is typed, with all its pictures."""

import argparse
from typing import List

from fairseq_entmax.analysis.explorer.app import HOST, Explorer, examples_of, make_server

from . import shared


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = shared.make_parser("explore", __doc__, shared.DEMO)
    shared.add_models(made, "a second one answers beside the first")
    made.add_argument("--port", type=int, default=8765, help="(default: 8765)")
    made.add_argument("--subset", default="test", help="lines to try are of it (default: test)")
    made.add_argument(
        "--max-expansions",
        type=int,
        default=2000,
        help="prefixes that exact search may continue for a tree (default: 2000)",
    )
    return made


def main(arguments: List[str]) -> None:
    """Serves this machine only, until it is interrupted."""
    shared.run(parser(), arguments, _work)


def _work(args: argparse.Namespace) -> None:
    if not 0 < args.port < 65536 or args.max_expansions < 1:
        raise ValueError("--port must be from 1 to 65535 and --max-expansions at least 1")
    opened = shared.open_models(args)
    examples = examples_of(opened[0], args.subset)
    explorer = Explorer(opened, args.max_expansions, examples=examples)
    server = make_server(explorer, args.port)
    print(f"http://{HOST}:{args.port}/  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
