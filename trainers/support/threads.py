"""Work in threads: shared by several that are started once, or one checkpoint that is written beside training."""

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

CHECKPOINT_INTERVAL_S = 30.0  # seconds of training that a kill may cost, where epochs are no longer than that
INTERVAL_VARIABLE = "SWEEP_CHECKPOINT_INTERVAL"


def share(work: Callable[[int], None], threads: int) -> None:
    """Call `work` with 0 to threads - 1, side by side, and wait for all, whatever one of them raises."""
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
    """Seconds of training that a kill may cost: CHECKPOINT_INTERVAL_S, or as the environment says.

    Raises EnvironmentFault for what is no number of seconds.
    """
    text = os.environ.get(INTERVAL_VARIABLE) or str(CHECKPOINT_INTERVAL_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:  # nan is not
        help = "write a number of seconds, 0 for a checkpoint after each epoch, or unset the variable"
        raise EnvironmentFault(f"{INTERVAL_VARIABLE}={text} is no number of seconds", help=help)
    return seconds


class CheckpointWriter:
    """A thread that writes one checkpoint at a time while training continues, and the clock of when the next is due.

    Training waits for a write only when it brings the next one, or has ended. An error of the thread is raised by the
    next call; where training itself has raised one by then, it goes into the log.
    """

    def __init__(self) -> None:
        self._interval = checkpoint_interval()
        self._since = time.monotonic()  # what was trained since then is in no checkpoint
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._copy: Callable[[], Callable[[], None]] | None = None  # of what no write has taken along
        self._written: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, GeneratorExit):  # the epochs so far are all that there will be
                self.finish()
            self.wait()
        except Exception:
            if error is None or isinstance(error, GeneratorExit):
                raise
            log.exception("a checkpoint could not be written")
        finally:
            self._thread.shutdown()

    def epoch(self, seconds: float, copy: Callable[[], Callable[[], None]], *, last: bool) -> None:
        """Take note of an epoch of so many seconds. `copy` copies the run as it is, and returns what writes the copy.

        It is called at once where a checkpoint is due, and after the last epoch, whose write is waited for; else when
        the writer is left by GeneratorExit, unless another epoch has come by then.
        """
        self._copy = copy
        if last:
            self.finish()
        elif self.is_due(seconds):
            self._begin()

    def finish(self) -> None:
        """Put all epochs on disk."""
        if self._copy:
            self._begin()
        self.wait()

    def _begin(self) -> None:
        """Have the run written as it is; waits for the write before, and so holds one copy at most."""
        self.wait()
        copy, self._copy = self._copy, None
        if copy:
            self.start(copy())

    def is_due(self, epoch_seconds: float) -> bool:
        """Whether a kill at the end of another epoch as long as the last would cost more than the interval."""
        return time.monotonic() - self._since + epoch_seconds > self._interval

    def start(self, write: Callable[[], None]) -> None:
        """Have the thread call `write`, with what was trained so far; the write before must have been waited for."""
        self._since = time.monotonic()
        self._written = self._thread.submit(write)

    def check(self) -> None:
        """Raise the error of a write that has failed; waits for none."""
        if self._written and self._written.done():
            self.wait()

    def wait(self) -> None:
        """Wait until what was given is on disk; raises what writing raised."""
        written, self._written = self._written, None
        if written:
            written.result()
