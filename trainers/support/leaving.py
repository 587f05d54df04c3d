"""The exit of a process that has loaded torch."""

import atexit
import os
import sys
from typing import NoReturn


def leave() -> NoReturn:
    """Exit this process with code 0 without tearing it down, which would take a second or two after torch.

    Registered exit handlers run, and streams are flushed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
