"""Work in threads: a pool for shared work, and a thread that writes checkpoints while training continues."""

import logging
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from types import TracebackType
from typing import Self

from trainers.support.errors import EnvironmentFault

log = logging.getLogger(__name__)

CHECKPOINT_INTERVAL_S = 30.0  # seconds of training that a kill may cost, if epochs are no longer than that
INTERVAL_VARIABLE = "SWEEP_CHECKPOINT_INTERVAL"


def share(work: Callable[[int], None], threads: int) -> None:
    """Call `work` with 0 to threads - 1 in parallel, and wait for all of them, even if one raises."""
    if threads == 1:
        work(0)
        return
    parts = [_pool(threads).submit(work, number) for number in range(threads)]
    wait(parts)
    for part in parts:
        part.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="batch")


def checkpoint_interval() -> float:
    """Return the seconds of training that a kill may cost: CHECKPOINT_INTERVAL_S, or the environment's value.

    Raises EnvironmentFault for a value that is not a number of seconds.
    """
    text = os.environ.get(INTERVAL_VARIABLE) or str(CHECKPOINT_INTERVAL_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:  # NaN is not
        help = "set a number of seconds, 0 for a checkpoint after each epoch, or unset the variable"
        raise EnvironmentFault(f"{INTERVAL_VARIABLE}={text} is not a number of seconds", help=help)
    return seconds


class CheckpointWriter:
    """A thread that writes one checkpoint at a time while training continues, and the clock for the next one.

    Training waits for a write only when the next one starts, or at its end. An error in the thread is raised by the
    next call, or logged if training itself has already failed.
    """

    def __init__(self) -> None:
        self._interval = checkpoint_interval()
        self._since = time.monotonic()  # no checkpoint holds what was trained since then
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._copy: Callable[[], Callable[[], None]] | None = None  # of epochs that no write has included yet
        self._written: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, GeneratorExit):  # there will be no further epochs
                self.finish()
            self.wait()
        except Exception:
            if error is None or isinstance(error, GeneratorExit):
                raise
            log.exception("could not write a checkpoint")
        finally:
            self._thread.shutdown()

    def epoch(self, seconds: float, copy: Callable[[], Callable[[], None]], *, last: bool) -> None:
        """Record an epoch that took `seconds`. `copy` copies the run as it is, and returns a function that writes it.

        It is called at once if a checkpoint is due, and after the last epoch, when the write is also awaited.
        Otherwise it is called when the writer exits by GeneratorExit, unless another epoch has been recorded by then.
        """
        self._copy = copy
        if last:
            self.finish()
        elif self.is_due(seconds):
            self._begin()

    def finish(self) -> None:
        """Write all epochs to disk."""
        if self._copy:
            self._begin()
        self.wait()

    def _begin(self) -> None:
        """Start writing the run as it is; waits for the previous write, and so holds at most one copy."""
        self.wait()
        copy, self._copy = self._copy, None
        if copy:
            self.start(copy())

    def is_due(self, epoch_seconds: float) -> bool:
        """True if a kill at the end of another epoch of the same length would cost more than the interval."""
        return time.monotonic() - self._since + epoch_seconds > self._interval

    def start(self, write: Callable[[], None]) -> None:
        """Let the thread call `write` with what was trained so far; the previous write must have finished."""
        self._since = time.monotonic()
        self._written = self._thread.submit(write)

    def check(self) -> None:
        """Raise the error of a failed write, without waiting for a running one."""
        if self._written and self._written.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the current write is on disk; raises what writing raised."""
        written, self._written = self._written, None
        if written:
            written.result()
