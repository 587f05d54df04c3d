"""How the program ends: what an error, or a signal, becomes for the person and for the shell."""

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
    """Have nothing's device take the place of a closed stream.

    Else the next file to be opened, a database perhaps, would get its number, and be printed into.
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
    """On stderr, if anybody listens, in the characters that it has; what would steer a terminal is shown."""
    encoding = sys.stderr.encoding or "utf-8"
    try:
        sys.stderr.write(visible(text).encode(encoding, "replace").decode(encoding))
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


PLACES = {
    errno.ENOSPC: ("the disk is full", "free some space and try again"),
    errno.EDQUOT: ("the disk's quota is used up", "free some space and try again"),
    errno.EFBIG: ("a file may not grow that large", "see ulimit -f, or the largest file that the disk takes"),
    errno.EROFS: ("nothing can be written here", "run in a folder that is yours, or name one with SWEEP_HOME"),
    errno.EACCES: ("this may not be read or written", "mend its permissions, or name another folder with SWEEP_HOME"),
    errno.EMFILE: ("too many files are open", "raise ulimit -n, or take fewer slots"),
    errno.ENAMETOOLONG: ("a path is longer than the file system takes", "shorten it"),
    errno.EEXIST: ("a file lies where a folder is needed", "move it away, or name another folder"),
    errno.ENOTDIR: ("a file lies where a folder is needed", "move it away, or name another folder with SWEEP_HOME"),
}


def run_and_exit(command: Callable[[], object]) -> None:
    """Do `command`: a user's mistake becomes one message and its exit code; our own keep their traceback."""
    fill_in()
    signal.signal(signal.SIGTERM, _terminated)
    atexit.register(gc.freeze)  # or Python looks for cycles in every library once more, half a second at each exit
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
    """As an exception, so that what is open is closed and who was started is ended."""
    sys.exit(128 + number)
