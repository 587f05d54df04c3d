"""The three standard streams, which a shell may have closed before the program began."""

import os
import sys

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
