"""One job at a time, in this very process: for debugging a recipe with a debugger or a profiler."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sweeper.executors import local
from sweeper.system.devices import Slot
from sweeper.trial import Done, Failed, Job, Progress
from sweeper.worker.job import Messages, advance, run
from trainers.support.position import Position


class Inline:
    """Keeps the promise of an executor but one: a crash of the interpreter is a crash of the sweep."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._messages: Messages | None = None
        self._answer: bool | None = None
        self._waiting = False  # for an answer to the last Progress

    def free(self) -> int:
        return 0 if self._messages else 1

    def start(self, job: Job) -> str:
        """The job begins with the first call of `next`."""
        self._messages, self._answer, self._waiting = run(job, self._device), None, False
        return self._device

    def next(self, timeout: float) -> Progress | Done | Failed | None:  # noqa: ARG002  it takes as long as the epoch
        """Trains one epoch and returns its Progress; None when there is nothing to do."""
        if self._messages is None or self._waiting:
            return None
        message = advance(self._messages, self._answer)
        self._waiting = isinstance(message, Progress)
        if not self._waiting:
            self._messages = None
        if isinstance(message, Failed):
            print(message.detail, file=sys.stderr)
        return message

    def positions(self) -> Mapping[int, Position]:
        """Nothing is known: an epoch is one call of `next`."""
        return {}

    def answer(self, trial: int, keep: bool) -> None:  # noqa: ARG002  there is only one
        self._answer, self._waiting = keep, False

    def close(self, *, kill: bool = False) -> None:  # noqa: ARG002  between two epochs nothing runs
        if self._messages:
            self._messages.close()
        self._messages = None


@contextmanager
def environment(slot: Slot | None) -> Iterator[None]:
    """That of a worker on `slot`, for training in this process; afterwards it is ours again."""
    before = dict(os.environ)
    os.environ.update(local.environment(slot) if slot else {})
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
