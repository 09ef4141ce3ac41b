"""What the run.py of the examples share: options, one run at a time in a folder, steps with logs.

Needs no torch, so that ``--help`` and a wrong option are answered at once.
"""

import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import sysconfig
from collections import deque
from pathlib import Path
from typing import (
    IO,
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    NoReturn,
    Optional,
    Pattern,
    Sequence,
    Tuple,
)

ROOT = Path(os.path.abspath(__file__)).parent.parent
SHOWN_OF_A_LOG = 20  # lines, when a step has failed


def _import_data() -> None:
    """``fairseq_entmax.data`` under a name of its own: the whole package takes 4 seconds."""
    folder = ROOT / "fairseq_entmax" / "data"
    spec = importlib.util.spec_from_file_location("entmax_data", str(folder / "__init__.py"))
    assert spec is not None and spec.loader is not None
    sys.modules["entmax_data"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["entmax_data"])


_import_data()
from entmax_data.files import whole, write_json, write_lines  # noqa: E402
from entmax_data.inflection import ORDERS, Corpus, DataError  # noqa: E402

__all__ = ["ORDERS", "Corpus", "DataError", "whole", "write_json", "write_lines"]


def fail(message: str) -> NoReturn:
    """Ends the run with one line; run.sh is what people call."""
    print(f"run.sh: {message}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def say(message: str) -> None:
    print(message, flush=True)  # before what the next step prints


# ---- options


def read_options(
    arguments: Sequence[str], defaults: Dict[str, str], usage: str, unknown: str
) -> Tuple[Dict[str, str], List[str]]:
    """The values of ``--NAME VALUE``, and the flags of fairseq-train behind ``--``.

    Args:
        defaults: a value for each name; an option whose default is ``no`` is a switch.
        unknown: what is said of an option that is not among them, ``{}`` being the option.
    """
    values, rest = dict(defaults), list(arguments)
    while rest:
        option = rest.pop(0)
        name = option[2:]
        if option == "--":
            break
        if option in ("--help", "-h"):
            say(usage.strip())
            raise SystemExit(0)
        if not option.startswith("--") or name not in defaults:
            fail(unknown.format(option))
        if defaults[name] == "no":
            values[name] = "yes"
        elif rest:
            values[name] = rest.pop(0)
        else:
            fail(f"{option} needs a value")
    return values, rest


def is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit()


def is_alpha(text: str) -> bool:
    """A number >= 1, as the options of the models take it."""
    try:
        return 1 <= float(text) < float("inf")
    except ValueError:
        return False


# ---- a folder


def lock(out: Path) -> IO[str]:
    """Makes a folder and keeps it for this run, and for the commands that it starts, until closed.

    What was started inherits the lock: a training that outlives its run is still at work.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / ".lock", "a+")  # noqa: SIM115, open as long as the run
    except OSError as error:
        fail(f"--out {out}: {error.strerror}")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        fail(f"--out {out}: another run is at work there (process {owner}): choose another folder")
    except OSError:
        pass  # a file system without locks
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    os.set_inheritable(file.fileno(), True)
    return file


def once(mark: Path, step: Callable[[], None]) -> None:
    """Does what no earlier run has finished."""
    if not mark.exists():
        step()
        mark.touch()


# ---- steps


def run(main: Callable[[List[str]], None]) -> None:
    """Runs an example: its commands find this clone, and end when it is told to stop."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{ROOT}:{path}" if path else str(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        say("run.sh: stopped, the same command goes on from here")
        raise SystemExit(128 + signal.SIGINT) from None


def script(name: str) -> str:
    """The path of a command such as fairseq-train."""
    return f"{sysconfig.get_path('scripts')}/{name}"


def plugin(*more: str) -> List[str]:
    """Flags of every fairseq command: this clone, ``more``, and ``--cpu`` if torch sees no GPU."""
    probe = "import torch; print(torch.cuda.is_available())"
    found = subprocess.run([sys.executable, "-c", probe], stdout=subprocess.PIPE, check=False)
    if found.returncode:
        fail(f"{sys.executable} cannot import torch, see above")
    gpu = found.stdout.split()[-1] == b"True"
    return ["--user-dir", f"{ROOT}/fairseq_entmax", *more, *([] if gpu else ["--cpu"])]


def show(*command: Any) -> None:
    """Runs a python script of the clone, which prints for itself and says why it fails."""
    code = _ended(_popen([sys.executable, *command]))
    if code:
        raise SystemExit(code)


def logged(
    log: Path,
    *command: Any,
    append: bool = False,
    output: Optional[Path] = None,
    echo: Optional[Pattern[bytes]] = None,
) -> None:
    """Runs a command with its output in a log, the last lines of which are shown if it fails.

    Args:
        append: keep what earlier runs have logged.
        output: a file for stdout, so that only stderr goes to the log.
        echo: lines of the log to show while it runs.
    """
    with open(log, "ab" if append else "wb", buffering=0) as file:
        if echo is not None:
            code = _echoed(_popen(command, subprocess.PIPE), file, echo)
        elif output is not None:
            with open(output, "wb") as answers:
                code = _ended(_popen(command, answers, file))
        else:
            code = _ended(_popen(command, file))
    if code:
        with open(log, "rb") as file:
            last = b"".join(deque(file, SHOWN_OF_A_LOG))
        sys.stderr.write(last.decode("utf-8", "replace"))
        fail(f"{Path(str(command[0])).name} failed, the whole log is {log}")


def _popen(
    command: Iterable[Any], stdout: Any = None, stderr: Any = None
) -> "subprocess.Popen[bytes]":
    if stdout is not None and stderr is None:
        stderr = subprocess.STDOUT
    return subprocess.Popen(list(map(str, command)), stdout=stdout, stderr=stderr, close_fds=False)


def _echoed(process: "subprocess.Popen[bytes]", log: IO[bytes], echo: Pattern[bytes]) -> int:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            log.write(line)
            if echo.search(line):
                say(line.decode("utf-8", "replace").rstrip("\n"))
    except BaseException:
        _stop(process)
        raise
    return _ended(process)


def _ended(process: "subprocess.Popen[bytes]") -> int:
    """The exit code of a command; it does not outlive a run that is stopped."""
    try:
        return process.wait()
    except BaseException:
        _stop(process)
        raise


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait()
