"""The process of a local worker, whose life is bound to its coordinator's before anything heavy is loaded."""

import argparse
import ctypes
import os
import signal
import socket
import sys

from trainers.support.leaving import leave

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with(parent: int) -> None:
    """Have the kernel end this process when `parent` ends, however that ends, be it stopped or busy itself.

    A parent that ended before is no parent any more. Where there is no such promise, the pipe's end does it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _outlast_sigterm() -> None:
    """Leave it to the coordinator to end this process: whoever stops a job (Slurm, a container, a shutdown) sends
    SIGTERM to every process of it, and the coordinator then waits for the epoch that is trained here.

    A handler, for a signal that is ignored would be ignored by every process that is started here, too.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)


def main() -> None:
    """`python -m sweeper.worker --fd N --parent PID`: serve the socket inherited as N."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args()
    _die_with(given.parent)
    _outlast_sigterm()
    from sweeper.worker.process import Connection, serve

    serve(Connection(socket.socket(fileno=given.fd)))
    leave()


if __name__ == "__main__":
    main()
