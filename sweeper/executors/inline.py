"""Runs one job at a time in this process, for use with a debugger or a profiler."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sweeper.executors import local
from sweeper.system.devices import Slot
from sweeper.trial import Done, Failed, Job, Progress
from sweeper.worker.job import Messages, advance, run
from trainers.support.position import Cursor, Position

TOLD_EVERY_S = 0.25  # seconds between two reports of the position

Moved = Callable[[Mapping[str, Position]], None]


class Inline:
    """An executor in this process; unlike any other, it does not survive a crash of the interpreter.

    While an epoch trains, nobody can call `positions`, so a second thread, which ends before `next` returns, passes
    the position to `moved`.
    """

    def __init__(self, device: str = "cpu", moved: Moved | None = None) -> None:
        self._device, self._moved, self._cursor = device, moved, Cursor()
        self._key = ""
        self._messages: Messages | None = None
        self._answer: bool | None = None
        self._waiting = False  # True while the last Progress is unanswered

    def free(self) -> int:
        return 0 if self._messages else 1

    def start(self, job: Job) -> str:
        """Accept `job`; training starts with the first call of `next`."""
        self._messages, self._answer, self._waiting = run(job, self._device, cursor=self._cursor), None, False
        self._key = job.key
        return self._device

    def next(self, timeout: float) -> Progress | Done | Failed | None:  # noqa: ARG002  it takes as long as the epoch
        """Train one epoch and return its Progress; None if there is nothing to do."""
        if self._messages is None or self._waiting:
            return None
        with self._reporting():
            message = advance(self._messages, self._answer)
        self._waiting = isinstance(message, Progress)
        if not self._waiting:
            self._messages = None
        if isinstance(message, Failed):
            print(message.detail, file=sys.stderr)
        return message

    def positions(self) -> Mapping[str, Position]:
        """Return the position within the epoch; empty between two calls of `next`, each of which is one epoch."""
        at = self._cursor.at
        return {self._key: at} if at else {}

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        if self._moved is None:
            yield
            return
        over = threading.Event()
        thread = threading.Thread(target=self._report, args=(self._moved, over), name="positions", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _report(self, moved: Moved, over: threading.Event) -> None:
        while not over.wait(TOLD_EVERY_S):
            moved(self.positions())

    def answer(self, key: str, keep: bool) -> None:  # noqa: ARG002  there is only one
        self._answer, self._waiting = keep, False

    def close(self, *, kill: bool = False) -> None:  # noqa: ARG002  between two epochs nothing runs
        if self._messages:
            self._messages.close()
        self._messages = None


@contextmanager
def environment(slot: Slot | None) -> Iterator[None]:
    """Give this process the environment of a worker on `slot`, and restore its own afterwards."""
    before = dict(os.environ)
    os.environ.update(local.environment(slot) if slot else {})
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
