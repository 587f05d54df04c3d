"""How a process that has loaded torch ends."""

import atexit
import os
import sys
from typing import NoReturn


def leave() -> NoReturn:
    """End this process with code 0, without taking it apart: after torch that takes a second or two.

    What was registered for the end is done, and streams are flushed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
