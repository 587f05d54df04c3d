"""Failpoints: places between two writes where a test kills the process. SWEEP_CRASH is read here and nowhere else.

`SWEEP_CRASH=POINT` kills the process (SIGKILL) when it reaches that point, `POINT@N` when it does so for the N-th
time, and `POINT@N=MARK` only if no file MARK exists, which is created first: so it happens once, however often
processes are restarted. `SWEEP_CRASH=?=FILE` kills nothing, and appends each point that is passed to FILE, one per
line.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SWITCH = "SWEEP_CRASH"
_passed: Counter[str] = Counter()


def failpoint(name: str, torn: Callable[[], object] | None = None) -> None:
    """Do nothing, unless the environment selects this point; `torn` then leaves a partial write behind."""
    wish = os.environ.get(SWITCH)
    if not wish:
        return
    what, _, mark = wish.partition("=")
    if what == "?":
        with Path(mark).open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")
        return
    wanted, _, times = what.partition("@")
    _passed[name] += 1
    if name == wanted and _passed[name] == int(times or 1) and _first(mark):
        if torn:
            torn()
        os.kill(os.getpid(), signal.SIGKILL)


def _first(mark: str) -> bool:
    """True if it has not happened yet."""
    if not mark:
        return True
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
