"""A background thread that sends updates to a slow or dead server, so that nothing waits for it."""

import threading
import time
from collections.abc import Callable

POLL_INTERVAL_S = 0.2  # seconds between two checks for progress
RETRY_INTERVAL_S = 30.0  # seconds to wait after a failed attempt
BATCH_DELAY_S = 0.25  # seconds to wait for more updates, to send them together


class BackgroundQueue:
    """A queue of named tasks, done in the order in which they are due; each is retried until it succeeds.

    A task is due some time after it is submitted, and submitting it again before it starts has no effect: so all
    updates of that time are sent together. After a failure the queue rests for `pause` seconds, then retries the
    task that failed. Both `do` and `failed` run in the thread.
    """

    def __init__(
        self, do: Callable[[str], None], failed: Callable[[Exception], None], *, pause: float = RETRY_INTERVAL_S
    ) -> None:
        self._do, self._failed, self._pause = do, failed, pause
        self._asked: dict[str, float] = {}  # task -> when it is due
        self._busy = self._last = self._over = False
        self._since = 0.0
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="sender", daemon=True)

    def submit(self, task: str, wait: float = BATCH_DELAY_S) -> None:
        """Schedule `task` for `wait` seconds from now or later; returns at once."""
        with self._change:
            self._asked.setdefault(task, time.monotonic() + wait)
            if self._thread.ident is None:
                self._thread.start()
            self._change.notify_all()

    @property
    def busy(self) -> float:
        """Seconds that the current task has taken so far; 0 if there is none."""
        return time.monotonic() - self._since if self._busy else 0.0

    def drain(self, patience: float, moved: Callable[[], object] = lambda: None) -> int:
        """Do the remaining tasks, retry a failed one once, and return the number of tasks that are not done.

        This takes at most `patience` seconds, counted from the last change of `moved()`, as many tasks take long.
        After that, the current task is not interrupted, but no other starts.
        """
        with self._change:
            self._last = True
            self._change.notify_all()
        before, deadline = moved(), time.monotonic() + patience
        while self._thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            self._thread.join(min(left, POLL_INTERVAL_S))
            if (now := moved()) != before:
                before, deadline = now, time.monotonic() + patience
        with self._change:
            self._over = True
            return len(self._asked) + self._busy

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                self._do(task)
            except Exception as error:  # noqa: BLE001  (whatever it is, the thread must live on)
                self._failed(error)
                if not self._again(task):
                    return
            else:
                self._busy = False

    def _next(self) -> str | None:
        """Wait for the next task that is due and return it; None if there will be no more."""
        with self._change:
            while not self._last and (left := self._left()) > 0:
                self._change.wait(left)
            if self._over or not self._asked:
                return None
            task = min(self._asked, key=self._asked.__getitem__)
            del self._asked[task]
            self._busy, self._since = True, time.monotonic()
            return task

    def _left(self) -> float:
        """Seconds until the first task is due."""
        return min(self._asked.values()) - time.monotonic() if self._asked else threading.TIMEOUT_MAX

    def _again(self, task: str) -> bool:
        """Put `task` back in front and rest; False if there must be no other attempt."""
        with self._change:
            self._asked = {task: 0.0} | self._asked
            self._busy = False
            if self._last:
                return False
            self._change.wait_for(lambda: self._last, self._pause)
            return True
