"""Executors run jobs somewhere and decide nothing; their common protocol is defined here."""

from collections.abc import Mapping
from typing import Protocol

from sweeper.trial import Done, Failed, Job, Progress
from trainers.support.position import Position


class Executor(Protocol):
    """Runs jobs somewhere else and decides nothing.

    Each started job ends in exactly one Done or Failed. After Progress the worker waits for `answer`, so a stopped
    trial never runs another epoch. Anything that happens to a worker (out of memory, a kill, a crash of the
    interpreter) becomes a Failed of its own job and of no other.
    """

    def free(self) -> int:
        """Return the number of jobs that could start now."""
        ...

    def start(self, job: Job) -> str:
        """Start `job` on a free slot; return the slot's name, such as cuda:0 or cpu."""
        ...

    def next(self, timeout: float) -> Progress | Done | Failed | None:
        """Return the next message of any worker, or None after `timeout` seconds."""
        ...

    def positions(self) -> Mapping[str, Position]:
        """Return the position within the current epoch of each running job by key, if known."""
        ...

    def answer(self, key: str, keep: bool) -> None:
        """Let the worker that reported Progress continue, or stop it (it then sends Done with stopped=True)."""
        ...

    def close(self, *, kill: bool = False) -> None:
        """End the workers, idle ones at once and, with `kill`, busy ones too; none is left afterwards."""
        ...
