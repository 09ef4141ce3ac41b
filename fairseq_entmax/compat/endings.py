"""How a command ends that was asked for what cannot be."""

import os
import signal
import sys
from typing import Any, Optional

from .repairs import repair

TRACEBACK = "FAIRSEQ_ENTMAX_TRACEBACK"  # anything: show where an error was raised
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _command() -> Optional[str]:
    """The name of the fairseq command that runs, if one does."""
    path = getattr(sys.modules["__main__"], "__file__", None) or ""
    folder, name = os.path.split(path)
    if os.path.basename(folder) == "fairseq_cli":  # python -m fairseq_cli.train
        return "fairseq-" + os.path.splitext(name)[0]
    return name if name.startswith("fairseq-") else None


@repair(lambda: _command() is not None and not getattr(sys.excepthook, "one_line", False))
def end_in_one_line() -> None:
    """Let a command that refuses what it was given end with one line and exit code 2, and one that
    is stopped by Ctrl-C with one line and 130.

    Fault: a ValueError that says what was wrong stands below 25 to 60 lines of traceback, and so
    does Ctrl-C. Errors raised outside of this package keep theirs.
    Versions: every fairseq. Test: tests/faults/test_command_lines.py::test_*.
    """
    stock = sys.excepthook

    def excepthook(kind: Any, error: Any, trace: Any) -> None:
        stopped = isinstance(error, KeyboardInterrupt)
        refused = isinstance(error, (ValueError, OSError)) and raised_here(trace)
        if not (stopped or refused) or os.environ.get(TRACEBACK):
            stock(kind, error, trace)
            return
        sys.stdout.flush()
        said = "stopped" if stopped else f"error: {error}"
        print(f"{_command()}: {said}", file=sys.stderr)
        # Python ends with it, as after sys.exit
        raise SystemExit(128 + signal.SIGINT if stopped else 2)

    excepthook.one_line = True  # type: ignore[attr-defined]
    sys.excepthook = excepthook


def raised_here(trace: Any) -> bool:
    """Whether the innermost function is one of this package."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = os.path.abspath(trace.tb_frame.f_code.co_filename)
    return file.startswith(PACKAGE + os.sep)
