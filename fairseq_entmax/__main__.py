"""``python -m fairseq_entmax COMMAND``: what needs no fairseq command line."""

import sys
from importlib import import_module
from typing import List

# name: the module whose main(arguments) it is, and what it does
COMMANDS = {
    "merge": ("fairseq_entmax.data.shards", "join what shards of fairseq-generate printed"),
    "predict": ("fairseq_entmax.transduction.predict", "answer the words of a table"),
}


def main(arguments: List[str]) -> None:
    """Hands over to a command; without one, names them all."""
    if not arguments or arguments[0] not in COMMANDS:
        lines = [f"  {name:10} {what}" for name, (_, what) in COMMANDS.items()]
        asked_for = not arguments or arguments[0] in ("-h", "--help")
        unknown = "" if asked_for else f"unknown command: {arguments[0]}\n"
        usage = "usage: python -m fairseq_entmax COMMAND [--help]\n" + "\n".join(lines)
        print(unknown + usage, file=sys.stdout if asked_for else sys.stderr)
        raise SystemExit(0 if asked_for else 2)
    import_module(COMMANDS[arguments[0]][0]).main(arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
