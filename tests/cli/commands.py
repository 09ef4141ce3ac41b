"""Runs fairseq's command lines as a user does, and reads what they print.

As a script, ``python commands.py jobs.json``, it runs many of them: fairseq is imported once (that
takes 5 seconds) and every command gets a forked process of its own.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import torch

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
USER_DIR = ["--user-dir", "fairseq_entmax"]
ENV = {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
TIMEOUT = 800  # the machine may be busy; pytest stops a test after 900

ARCHS = {
    "transformer": ["--arch", "transformer_entmax_tiny"],
    "lstm": [
        *("--arch", "lstm_entmax", "--encoder-embed-dim", 32, "--encoder-hidden-size", 32),
        *("--decoder-embed-dim", 32, "--decoder-hidden-size", 32, "--decoder-out-embed-dim", 32),
        *("--encoder-bidirectional", "--output-alpha", 2),
    ],
}


def train_args(data: Any, save_dir: Any, *more: Any) -> List[Any]:
    """A training with the flags that all have here; later flags win."""
    return [
        *(data, *USER_DIR, "--task", "translation", "--save-dir", save_dir, "--cpu", "--seed", 1),
        *("--criterion", "entmax_loss", "--optimizer", "adam", "--lr", 0.005, "--batch-size", 16),
        *("--no-epoch-checkpoints", "--log-format", "json", "--log-interval", 1, *more),
    ]


class Finished(NamedTuple):
    """A command that has ended; output is stdout and stderr."""

    code: int
    output: str


def environment(**changes: Any) -> Dict[str, str]:
    return {**os.environ, **ENV, **{key: str(value) for key, value in changes.items()}}


def argv(command: str, *args: Any) -> List[str]:
    return [str(SCRIPTS / command), *map(str, args)]


def attempt(command: str, *args: Any, cwd=REPO, stdin=None, **env: Any) -> Finished:
    """Runs one command line, which may fail."""
    return _finished(argv(command, *args), cwd, environment(**env), stdin)


def attempt_script(script: Path, folder: Path, *args: Any) -> Finished:
    """Runs a run.sh in a folder; it may fail."""
    command = ["bash", str(script), *map(str, args)]
    return _finished(command, folder, environment(PYTHON=sys.executable))


def _finished(command: List[str], cwd: Any, env: Dict[str, str], stdin=None) -> Finished:
    done = subprocess.run(
        command,
        cwd=str(cwd),
        env=env,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    return Finished(done.returncode, done.stdout)


def run(command: str, *args: Any, **options: Any) -> str:
    """Runs one command line, which must succeed; returns what it printed."""
    done = attempt(command, *args, **options)
    assert done.code == 0, f"{command} {' '.join(map(str, args))}\n{done.output[-4000:]}"
    return done.output


def attempt_all(jobs: Dict[str, List[Any]], folder: Path) -> Dict[str, Finished]:
    """Runs command lines one after another, each in a fork of one process that imports fairseq."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = {name: list(map(str, job)) for name, job in jobs.items()}
    (folder / "jobs.json").write_text(json.dumps(plan), encoding="utf-8")
    subprocess.run(
        [sys.executable, __file__, "jobs.json"],
        cwd=str(folder),
        env=environment(),
        timeout=TIMEOUT,
        check=True,
    )
    codes = json.loads((folder / "codes.json").read_text(encoding="utf-8"))
    return {
        name: Finished(code, (folder / f"{name}.log").read_text(encoding="utf-8"))
        for name, code in codes.items()
    }


# --- what the commands print ---------------------------------------------------------------------


class Hypothesis(NamedTuple):
    """The H-, D-, P- and (where printed) A-line of one hypothesis."""

    score: float
    tokens: List[str]
    text: str
    positional: List[float]
    alignment: str


def parse_generation(output: str) -> Dict[int, List[Hypothesis]]:
    """The hypotheses of every sentence, in the order printed."""
    lines: Dict[str, Dict[int, List[List[str]]]] = {k: defaultdict(list) for k in "SHDPA"}
    for kind, number, rest in re.findall(r"^([SHDPA])-(\d+)(?:\t(.*))?$", output, re.M):
        lines[kind][int(number)].append(rest.split("\t"))
    answers: Dict[int, List[Hypothesis]] = {number: [] for number in lines["S"]}
    for number, hypotheses in lines["H"].items():
        for i, (score, tokens) in enumerate(hypotheses):
            alignments = lines["A"].get(number)
            answers[number].append(
                Hypothesis(
                    float(score),
                    tokens.split(),
                    lines["D"][number][i][1],
                    [float(p) for p in lines["P"][number][i][0].split()],
                    alignments[i][0] if alignments else "",
                )
            )
    return answers


def assert_same_parameters(checkpoint: Path, other: Path, atol: float) -> None:
    """Two checkpoints hold the same model."""
    parameters, others = (
        torch.load(str(path), map_location="cpu")["model"] for path in (checkpoint, other)
    )
    assert parameters.keys() == others.keys()
    for name, value in parameters.items():
        # the true gradient of a key's bias is 0, and adam makes steps of its rounding errors
        if not name.endswith("k_proj.bias"):
            difference = (value - others[name]).abs().max().item()
            assert difference <= atol, f"{name} differs by {difference}"


def json_logs(output: str, kind: str) -> List[Dict[str, float]]:
    """What ``--log-format json`` printed: kind is train, train_inner or valid."""
    found = re.findall(rf"INFO(?: \| |:){kind}(?: \| |:)(\{{.*\}})$", output, re.M)
    return [{key: _number(value) for key, value in json.loads(line).items()} for line in found]


def _number(value: Any) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


# --- the forking script --------------------------------------------------------------------------


def main(jobs_file: str) -> None:
    import fairseq_cli.eval_lm
    import fairseq_cli.generate
    import fairseq_cli.train
    import fairseq_cli.validate

    codes = {}
    for name, (command, *args) in json.loads(Path(jobs_file).read_text(encoding="utf-8")).items():
        log = Path(f"{name}.log").resolve()
        pid = os.fork()
        if pid == 0:
            entry = getattr(fairseq_cli, command[len("fairseq-") :]).cli_main
            os._exit(_in_fork(entry, [command, *args], log))
        _, status = os.waitpid(pid, 0)
        exited = os.WIFEXITED(status)
        codes[name] = os.WEXITSTATUS(status) if exited else -os.WTERMSIG(status)
    Path("codes.json").write_text(json.dumps(codes), encoding="utf-8")


def _in_fork(entry: Any, arguments: List[str], log: Path) -> int:
    """Runs a command with its output in a file; returns its exit code."""
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.argv = arguments
        sys.modules["__main__"].__file__ = arguments[0]
        os.chdir(str(REPO))
        code = _code_of(_with_hook, entry)
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def _code_of(function: Any, *args: Any) -> int:
    try:
        function(*args)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def _with_hook(entry: Any) -> None:
    """Runs a command; an error goes where Python sends it, with Python's exit code."""
    try:
        entry()
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main(sys.argv[1])
