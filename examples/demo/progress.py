"""fairseq's training as one line: its log goes from standard input into a file."""

import argparse
import re
import sys
from collections import deque
from pathlib import Path
from typing import Any, Deque, Iterable

from tqdm import tqdm

_UPDATES = re.compile(r"num_updates=(\d+)")
_LAST = 20  # lines of the log that are shown if the training fails


def follow(lines: Iterable[str], log: Any, bar: Any) -> Deque[str]:
    """Copies the lines, moves the bar, and returns the last lines."""
    last: Deque[str] = deque(maxlen=_LAST)
    for line in lines:
        log.write(line)
        log.flush()
        last.append(line)
        found = _UPDATES.search(line)
        if found:
            bar.update(int(found.group(1)) - bar.n)
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path, help="file to add to")
    parser.add_argument("updates", type=int, help="of the whole training")
    args = parser.parse_args()

    shown = {"total": args.updates, "unit": " updates", "disable": None, "leave": False}
    with open(args.log, "a", encoding="utf-8") as log:
        print(f"training, {args.updates} updates (log: {args.log}) ...", flush=True)
        with tqdm(desc="training", **shown) as bar:
            last = follow(sys.stdin, log, bar)
    if not any("done training" in line for line in last):
        sys.stderr.write("".join(last))
        raise SystemExit(f"the training failed, its whole log is {args.log}")


if __name__ == "__main__":
    main()
