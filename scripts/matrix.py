"""Installs this package beside one fairseq and torch after another, and trains with each.

    python scripts/matrix.py --out /tmp/matrix --table docs/versions.md [ROW ...]

Rows of ``ROWS`` with the same Python, fairseq and torch share a virtual environment, made for the
first of them; each installs the package anew, as a wheel that was built from the sdist, or, without
a compiler, as the sdist. A mapping must agree with its definition, and two tiny models are trained
for 3 updates, resumed to 6 and decode as many lines as came in. OUT/ROW/result.json keeps what came
of a row, OUT/ROW/log what was printed; a row with a result is not run again. A Python is looked for
among pyenv's, then as ``pythonX.Y``.
"""

import argparse
import datetime
import glob
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from runner import write_json, write_lines  # noqa: E402

BEGIN, END = "<!-- table -->", "<!-- end of the table -->"
UPDATES, MORE_UPDATES = 3, 6
TESTED = 11  # sentences
PROBE = """
import json, platform, numpy, torch, fairseq, fairseq_entmax
from fairseq_entmax.functional import entmax
from fairseq_entmax.kernels import native
z = torch.tensor([[2.0, 1.5, -1.0, 0.8]])
p = entmax(z, 1.5)
tau = z / 2 - p.sqrt()
assert abs(p.sum() - 1) < 1e-6 and p[0, 2] == 0 and tau[0, [0, 1, 3]].std() < 1e-6
print(json.dumps({"python": platform.python_version(), "torch": torch.__version__,
    "numpy": numpy.__version__, "kernels": "C" if native.takes(z) else "torch"}))
"""

# each command in a process of its own; torch and fairseq are imported once, for all of them
COMMANDS = """
import json, os, sys
from fairseq_cli import generate, preprocess, train
for name, *args in json.loads(sys.argv[1]):
    print(f"\\n$ fairseq-{name}", *args, flush=True)
    child = os.fork()
    if not child:
        sys.argv = [f"fairseq-{name}", *args]
        sys.exit({"generate": generate, "preprocess": preprocess, "train": train}[name].cli_main())
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
"""


class Row(NamedTuple):
    """One combination: ``fairseq`` and ``torch`` as pip names them."""

    python: str
    fairseq: str
    torch: str
    environment: Optional[Dict[str, str]] = None
    like_main: bool = False  # with torch.load(weights_only=False), as fairseq's main branch
    remark: str = ""


NO_COMPILER = {"CC": "false"}
UPSTREAM, MAIN = "fairseq==0.12.2", "ve-fairseq==0.12.3"
ROWS = {
    "3.8-torch1.13": Row("3.8", UPSTREAM, "torch==1.13.1"),
    "3.8-torch2.4": Row("3.8", UPSTREAM, "torch==2.4.1"),
    "3.9": Row("3.9", UPSTREAM, "torch"),
    "3.10": Row("3.10", UPSTREAM, "torch==2.14.1"),
    "3.11": Row("3.11", MAIN, "torch==2.13.0"),
    "3.11-newest": Row("3.11", MAIN, "torch"),
    "3.12": Row("3.12", MAIN, "torch==2.14.1"),
    "fixed": Row("3.12", "fairseq-fixed==0.12.3.1", "torch==2.14.1"),
    "built": Row("3.11", "fairseq-built==0.12.4", "torch==2.13.0"),
    "like-main": Row(
        "3.11", MAIN, "torch==2.13.0", like_main=True, remark="patched: weights_only=False"
    ),
    "no-compiler": Row("3.11", MAIN, "torch==2.13.0", NO_COMPILER, remark="sdist, no compiler"),
    "kernels-off": Row(
        *("3.11", MAIN, "torch==2.13.0"),
        environment={"FAIRSEQ_ENTMAX_KERNELS": "off"},
        remark="kernels off",
    ),
}
ARCHS = {
    "transformer": ["--arch", "transformer_entmax_tiny"],
    "lstm": [
        *("--arch", "lstm_entmax", "--encoder-embed-dim", "16", "--encoder-hidden-size", "16"),
        *("--decoder-embed-dim", "16", "--decoder-hidden-size", "16"),
        *("--decoder-out-embed-dim", "16"),
    ],
}


class Failed(Exception):
    """A step that ended with an error; its last line says what."""


class Trial:
    """One row in its folder."""

    def __init__(self, name: str, row: Row, out: Path) -> None:
        self.name, self.row, self.folder = name, row, out / name
        self.data = self.folder / "data"
        self.venv = out / "environments" / "-".join((row.python, row.fairseq, row.torch))
        self.python = self.venv / "bin" / "python"
        self.environment = {
            **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            **{"OMP_NUM_THREADS": "1", **(row.environment or {})},
        }

    def run(self, *command: Any, timeout: int = 3600) -> str:
        """Runs a command in the row's folder; the log keeps what it printed.

        Raises:
            Failed: its exit code is not 0.
        """
        words = list(map(str, command))
        done = subprocess.run(
            words,
            cwd=str(self.folder),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
        with open(self.folder / "log", "a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(words)}\n{done.stdout}\n")
        if done.returncode:
            last = (done.stdout.strip() or "nothing was printed").splitlines()[-1]
            raise Failed(f"{Path(words[0]).name}: {last[:160]}")
        return done.stdout

    def install(self, package: Path) -> None:
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip.append("--no-compile")  # most of torch is never imported here
        whole = self.venv / "whole"
        if not whole.exists():
            self.run(find_python(self.row.python), "-m", "venv", "--clear", self.venv)
            # fairseq 0.12.2 asks for an omegaconf whose metadata newer pips refuse
            self.run(*pip, "pip<24.1", "setuptools<81", "wheel")
            self.run(*pip, self.row.torch, "numpy<2" if self.row.fairseq == UPSTREAM else "numpy")
            # fairseq's own sdist is compiled against the numpy and torch that are there; torch is
            # named again, because torchaudio, which fairseq asks for, would bring another
            self.run(*pip, "cython")
            these = (self.row.torch, self.row.fairseq, "sacrebleu", "sentencepiece")
            self.run(*pip, "--no-build-isolation", *these)
            whole.touch()
        again = ("--no-deps", "--no-build-isolation", "--no-cache-dir", "--force-reinstall")
        self.run(*pip, *again, package)

    def patch(self) -> None:
        """torch.load's safe default undone, as in fairseq's main branch, or done again."""
        path = next(self.venv.glob("lib/*/site-packages/fairseq/checkpoint_utils.py"))
        unsafe = " weights_only=False,"
        text = path.read_text(encoding="utf-8").replace(unsafe, "")
        if self.row.like_main:
            text, places = re.subn(r"torch\.load\(\s*f,", rf"\g<0>{unsafe}", text)
            if not places:
                raise Failed(f"{path.name} has no torch.load to be patched")
        write_lines(path, text.rstrip("\n").split("\n"))

    def prepare(self) -> List[str]:
        """A corpus, and the command that prepares it."""
        self.data.mkdir()
        pairs = [(f"{a} {b} {c}", f"{c} {b} {a}") for a in "abcd" for b in "efgh" for c in "ijkl"]
        for part, some in (("train", pairs), ("valid", pairs[:7]), ("test", pairs[:TESTED])):
            for side, language in enumerate(("src", "tgt")):
                write_lines(self.data / f"{part}.{language}", [pair[side] for pair in some])
        prefixes = (f"--{part}pref={self.data / part}" for part in ("train", "valid", "test"))
        return ["preprocess", "-s", "src", "-t", "tgt", *prefixes, "--destdir", "bin"]

    def train_and_decode(self) -> None:
        """Both archs: trained, resumed and decoding every line.

        Raises:
            Failed: a command failed, or did something else.
        """
        ours = ["bin", "--user-dir", "fairseq_entmax", "--cpu", "--task", "translation"]
        commands = [self.prepare()]
        for arch, flags in ARCHS.items():
            train = ["train", *ours, *flags, "--save-dir", arch, "--criterion", "entmax_loss"]
            train += ["--optimizer", "adam", "--lr", "0.005", "--batch-size", "16"]
            train += ["--num-workers", "0", "--log-format", "json", "--max-update"]
            commands += [[*train, str(updates)] for updates in (UPDATES, MORE_UPDATES)]
            path = f"{arch}/checkpoint_last.pt"
            commands.append(["generate", *ours, "--path", path, "--beam", "3"])
        printed = self.run(self.python, "-c", COMMANDS, json.dumps(commands))
        for block in printed.split("\n$ fairseq-")[1:]:
            check(block, resumed=f"--max-update {MORE_UPDATES}" in block.split("\n")[0])

    def result(self, package: Path) -> Dict[str, Any]:
        """What the row's cells say."""
        shutil.rmtree(self.folder, ignore_errors=True)  # of a row that was interrupted
        self.folder.mkdir(parents=True)
        outcome: Dict[str, Any] = {"date": datetime.date.today().isoformat()}
        try:
            self.install(package)
            self.patch()
            outcome.update(json.loads(self.run(self.python, "-c", PROBE).strip().splitlines()[-1]))
            self.train_and_decode()
            outcome["outcome"] = "trains, resumes, decodes"
        except (Failed, subprocess.TimeoutExpired) as error:
            outcome["outcome"] = f"fails: {error}"
        return outcome


def check(printed: str, resumed: bool) -> None:
    """Looks at what one command of fairseq printed.

    Raises:
        Failed: a training was not resumed, or a line was not answered.
    """
    updates = f'"train_num_updates": "{MORE_UPDATES}"'
    if resumed and not (updates in printed and "Loaded checkpoint" in printed):
        raise Failed(f"fairseq-train: it was not resumed to {MORE_UPDATES} updates")
    if printed.startswith("generate"):
        lines = (line for line in printed.split("\n") if line[:2] == "H-")
        found = sorted(int(line[2:].split("\t")[0]) for line in lines)
        if found != list(range(TESTED)):
            raise Failed(f"fairseq-generate: {TESTED} lines in, answered {found}")


def find_python(version: str) -> str:
    """The interpreter of a version such as 3.8.

    Raises:
        Failed: there is none.
    """
    found = shutil.which(f"python{version}")
    installed = sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python")))
    if installed:
        return installed[-1]
    if found is None:
        raise Failed(f"no Python {version} here")
    return found


def package(out: Path, kind: str) -> Path:
    """The package as "tar.gz" or, built from that, as "whl"."""
    folder = out / "dist"
    found = list(folder.glob(f"*.{kind}"))
    if not found and kind == "whl":
        build = ("pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder)
        command = ["-m", *build, package(out, "tar.gz")]
    else:
        command = ["setup.py", "--quiet", "egg_info", "--egg-base", folder, "sdist", "-d", folder]
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, *map(str, command)], cwd=str(ROOT), check=True)
    return next(folder.glob(f"*.{kind}"))


def table(out: Path) -> List[str]:
    """The rows that have a result, in Markdown."""
    head = ("Python", "fairseq", "torch", "NumPy", "kernels", "outcome", "date")
    lines = [" | ".join(["", *head, ""]).strip(), "| --- " * len(head) + "|"]
    for name, row in ROWS.items():
        path = out / name / "result.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            fairseq = row.fairseq.replace("==", " ") + (f" ({row.remark})" if row.remark else "")
            cells = [
                found.get("python", row.python),
                fairseq,
                found.get("torch", row.torch[7:] or "newest"),
            ]
            cells += [found.get(key, "") for key in ("numpy", "kernels", "outcome", "date")]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--out", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--table", type=Path, help="file whose table is replaced")
    args = parser.parse_args()
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {' '.join(unknown)}")
    out = args.out.resolve()
    for name in args.rows or ROWS:
        trial = Trial(name, ROWS[name], out)
        if not (trial.folder / "result.json").exists():
            found = trial.result(
                package(out, "tar.gz" if ROWS[name].environment == NO_COMPILER else "whl")
            )
            write_json(trial.folder / "result.json", found)
            print(f"{name}: {found['outcome']}", flush=True)
    lines = table(out)
    if args.table is None:
        print("\n".join(lines))
        return
    before, _, rest = args.table.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    write_lines(
        args.table, f"{before}{BEGIN}\n{chr(10).join(lines)}\n{END}{after}".rstrip().split("\n")
    )


if __name__ == "__main__":
    main()
