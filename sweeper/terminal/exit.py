"""The exit of the program: turns errors and signals into a message and an exit code."""

import atexit
import errno
import gc
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from sweeper.errors import UserError, message
from trainers.support.text import visible


def fill_in() -> None:
    """Replace closed standard streams with the null device.

    Otherwise, the next file to be opened, such as a database, gets the stream's number and receives its output.
    """
    for number, mode in enumerate("rww"):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY), True)
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def complain(text: str) -> None:
    """Write to stderr, if it is open, in its own encoding; control characters are shown as escapes."""
    encoding = sys.stderr.encoding or "utf-8"
    try:
        sys.stderr.write(visible(text).encode(encoding, "replace").decode(encoding))
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


PLACES = {
    errno.ENOSPC: ("the disk is full", "free some space and try again"),
    errno.EDQUOT: ("the disk's quota is used up", "free some space and try again"),
    errno.EFBIG: ("a file exceeds the size limit", "check ulimit -f, and the largest file that the disk allows"),
    errno.EROFS: ("this disk is read-only", "run in a folder that you can write to, or set SWEEP_HOME to one"),
    errno.EACCES: ("permission denied", "fix the permissions, or set SWEEP_HOME to another folder"),
    errno.EMFILE: ("too many files are open", "raise ulimit -n, or use fewer slots"),
    errno.ENAMETOOLONG: ("a path is longer than the file system allows", "shorten it"),
    errno.EEXIST: ("a file exists where a folder is needed", "move it away, or choose another folder"),
    errno.ENOTDIR: ("a file exists where a folder is needed", "move it away, or set SWEEP_HOME to another folder"),
}


def run_and_exit(command: Callable[[], object]) -> None:
    """Run `command`: a user error becomes one message and its exit code; bugs keep their traceback."""
    fill_in()
    signal.signal(signal.SIGTERM, _terminated)
    atexit.register(gc.freeze)  # saves half a second of garbage collection at exit
    try:
        command()
    except UserError as error:
        complain(message(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in PLACES:
            raise
        what, remedy = PLACES[error.errno]
        complain(f"error: {what}\n  --> {error.filename or 'mlruns'}\nhelp: {remedy}\n")
        sys.exit(3)


def _terminated(number: int, _: FrameType | None) -> NoReturn:
    """Exit by an exception, so that open files are closed and started processes are stopped."""
    sys.exit(128 + number)
