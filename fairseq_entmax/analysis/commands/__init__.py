"""The commands that look inside a model: ``python -m fairseq_entmax.analysis COMMAND``.

A command is a module with ``main(arguments)``, named below.
"""

import signal
import sys
from importlib import import_module
from typing import Dict, List, Tuple

Commands = Dict[str, Tuple[str, str]]

# each is a module of this folder
_WHAT = {
    "alignment": "draw attention; exact zeros are blank",
    "tree": "draw all strings that a model allows for one input",
    "steps": "draw the possible next tokens at each step of an output",
    "support": "draw how many tokens are possible, over a training and by position",
    "report": "write one HTML page about a model",
    "explore": "serve an interactive page: type a line, see what is possible",
    "sweep": "draw the results of scripts/sweep_alpha.py against alpha",
    "speed": "draw the validations of benchmark.py training-curve against time",
    "distribution": "entropy, length, events and calibration, with proven bounds",
    "search": "what beam search finds, proves and misses, beside exact search",
    "generation": "what language models predict and write",
    "mapping": "draw the entropies and mappings of the paper",
}

# name: the module whose main(arguments) it is, and what it does
COMMANDS: Commands = {name: (f"{__name__}.{name}", what) for name, what in _WHAT.items()}


def run(arguments: List[str], commands: Commands, program: str) -> None:
    """Hands over to a command; without one, names them all."""
    if not arguments or arguments[0] not in commands:
        width = max(map(len, commands))
        lines = [f"  {name:{width}}  {what}" for name, (_, what) in commands.items()]
        asked_for = not arguments or arguments[0] in ("-h", "--help")
        unknown = "" if asked_for else f"unknown command: {arguments[0]}\n"
        usage = f"usage: {program} COMMAND [--help]\n" + "\n".join(lines)
        print(unknown + usage, file=sys.stdout if asked_for else sys.stderr)
        raise SystemExit(0 if asked_for else 2)
    try:
        import_module(commands[arguments[0]][0]).main(arguments[1:])
    except KeyboardInterrupt:
        sys.stdout.flush()
        print(f"{program} {arguments[0]}: stopped", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
