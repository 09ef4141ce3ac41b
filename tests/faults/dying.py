"""Processes that die, or whose disk is full, after so many bytes of a file."""

import itertools
import os
import re
import resource
import signal
import traceback
from typing import Any, Callable, Optional

DISK_FULL = 28  # the exit code of a child that was told so


def in_child(work: Callable[[], None], limit: Optional[int] = None, dies: bool = False) -> int:
    """Runs ``work`` in a fork; returns its exit code, or minus the signal that killed it.

    Args:
        limit: no file grows beyond so many bytes.
        dies: the kernel kills the process inside the write that would, with nothing cleaned up;
            otherwise that write fails with an OSError, as on a full disk.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if limit is not None:
                _limit(limit, dies)
            work()
            code = 0
        except OSError:
            code = DISK_FULL
        except RuntimeError as error:  # torch's own writer
            code = DISK_FULL if re.search("writing file|unexpected pos|iostream", str(error)) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def _limit(limit: int, dies: bool) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if dies else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def die_at(call: int, name: str) -> None:
    """Lets this process kill itself at the call of ``os.NAME`` of this number, from 0."""
    original, calls = getattr(os, name), itertools.count()

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(os, name, counted)


def die_instead_of(*names: str) -> None:
    """Lets this process kill itself where it would call ``os.NAME``."""

    def kill(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    for name in names:
        setattr(os, name, kill)
