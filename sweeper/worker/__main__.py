"""The process of a local worker; its life is tied to the coordinator's before anything heavy is loaded."""

import argparse
import ctypes
import os
import signal
import socket
import sys

from trainers.support.leaving import leave

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when `parent` ends, however it ends, even while this process is stopped or
    busy.

    If `parent` has ended already, exit now. Without such a kernel, the closed pipe ends this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _outlast_sigterm() -> None:
    """Survive SIGTERM and leave it to the coordinator to end this process: to stop a job, Slurm, containers and
    shutdowns send SIGTERM to every process of it, and the coordinator then waits for the epoch trained here.

    The signal gets a handler, since an ignored signal would also be ignored by every process started here.
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
