"""Run jobs somewhere and decide nothing. What every executor promises stands here."""

from collections.abc import Mapping
from typing import Protocol

from sweeper.trial import Done, Failed, Job, Progress
from trainers.support.position import Position


class Executor(Protocol):
    """Runs jobs somewhere else, and decides nothing.

    Each started job ends in exactly one Done or Failed. After Progress the worker waits for `answer`, so a
    stopped trial never runs another epoch. Whatever happens to a worker, an out-of-memory, a kill, a crash of
    the interpreter, becomes a Failed of its own job and of no other.
    """

    def free(self) -> int:
        """How many jobs could be started now."""
        ...

    def start(self, job: Job) -> str:
        """Start `job` on a free slot; returns the slot's name, such as cuda:0 or cpu."""
        ...

    def next(self, timeout: float) -> Progress | Done | Failed | None:
        """The next message of any worker, or None after `timeout` seconds."""
        ...

    def positions(self) -> Mapping[int, Position]:
        """How far the epochs of running trials are, by trial, as far as it is known."""
        ...

    def answer(self, trial: int, keep: bool) -> None:
        """Let the worker that reported Progress go on, or stop it (it then sends Done with stopped=True)."""
        ...

    def close(self, *, kill: bool = False) -> None:
        """End the workers: idle ones at once, busy ones when `kill`; afterwards none is left."""
        ...
