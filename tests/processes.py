"""Programs of the tests that are several processes, run beside the test's own."""

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def run_module(name, folder, **environment):
    """``python -m NAME FOLDER`` from the repository, with what this process can import."""
    path = os.pathsep.join([str(REPO), *filter(None, sys.path)])
    subprocess.run(
        [sys.executable, "-m", name, str(folder)],
        cwd=str(REPO),
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        timeout=300,
        check=True,
    )
