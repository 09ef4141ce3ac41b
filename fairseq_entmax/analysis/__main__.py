"""``python -m fairseq_entmax.analysis COMMAND``: looks inside a model."""

import sys

from .commands import COMMANDS, run

if __name__ == "__main__":
    run(sys.argv[1:], COMMANDS, "python -m fairseq_entmax.analysis")
