"""The commands that look inside a model: ``python -m fairseq_entmax.analysis COMMAND``.

A command is a module with ``main(arguments)``; name it in COMMANDS to add one.
"""

import signal
import sys
from importlib import import_module
from typing import Dict, List, Tuple

Commands = Dict[str, Tuple[str, str]]

# name: the module whose main(arguments) it is, and what it does
COMMANDS: Commands = {
    "alignment": (f"{__name__}.alignment", "attention as a map, exact zeros blank"),
    "tree": (f"{__name__}.tree", "all strings that a model allows for one input"),
    "steps": (f"{__name__}.steps", "the possible next tokens at each step of one output"),
    "support": (f"{__name__}.support", "numbers of possible tokens, in training and by position"),
    "report": (f"{__name__}.report", "one HTML page about a model"),
    "explore": (f"{__name__}.explore", "the same alive, in the browser"),
    "sweep": (f"{__name__}.sweep", "figures of scripts/sweep_alpha.py against alpha"),
    "speed": (f"{__name__}.speed", "validations of benchmark.py training-curve against seconds"),
    "distribution": (f"{__name__}.distribution", "what is proven of all strings: entropy, events"),
    "generation": (f"{__name__}.generation", "what language models predict and write"),
    "mapping": (f"{__name__}.mapping", "the entropies and mappings of the paper"),
}


def run(arguments: List[str], commands: Commands, program: str) -> None:
    """Hands over to a command; without one, names them all."""
    if not arguments or arguments[0] not in commands:
        lines = [f"  {name:12} {what}" for name, (_, what) in commands.items()]
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
