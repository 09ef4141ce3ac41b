"""What a running command has used so far. Needs Linux."""

import os
import re
import sysconfig
from pathlib import Path

SCRIPTS = Path(sysconfig.get_path("scripts"))  # of fairseq's commands


def cpu_seconds(pid: int) -> float:
    # the name of the program, in brackets, may hold blanks
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(peak.group(1)) * 1024 / 1e6 if peak else float("nan")
