"""``fairseq-entmax COMMAND``, or ``python -m fairseq_entmax COMMAND``."""

import sys
from typing import List, Optional

from fairseq_entmax.analysis import commands

COMMANDS: commands.Commands = {
    "merge": ("fairseq_entmax.data.shards", "join the outputs of the shards of fairseq-generate"),
    "predict": (
        "fairseq_entmax.transduction.predict",
        "answer a table of words",
    ),
    **commands.COMMANDS,
}


def main(arguments: Optional[List[str]] = None) -> None:
    """Hands over to a command; without one, names them all."""
    commands.run(sys.argv[1:] if arguments is None else arguments, COMMANDS, "fairseq-entmax")


if __name__ == "__main__":
    main()
