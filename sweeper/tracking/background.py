"""One thread that carries news somewhere slow or dead, so that nobody waits for it."""

import threading
import time
from collections.abc import Callable

POLL_INTERVAL_S = 0.2  # seconds between two looks at whether something has moved
RETRY_INTERVAL_S = 30.0  # seconds without an attempt after one has failed
BATCH_DELAY_S = 0.25  # seconds after a task is asked in which more may come, to be carried in one go


_left: list[threading.Thread] = []  # that were given up in the midst of a task


def all_stopped() -> bool:
    """Whether every sender of this process that was given up has ended, so that another may begin with the same."""
    _left[:] = [thread for thread in _left if thread.is_alive()]
    return not _left


class BackgroundQueue:
    """Does tasks by name, in the order in which they are due, each again until it succeeds.

    A task is due some time after it was asked, and asking again before it is begun is asking once: so the news
    of that time are carried in one go. After a failure it rests for `pause` seconds, then begins again with the
    task that failed. `do` runs in the thread; so does `failed`.
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
        """Have `task` done in `wait` seconds or later; returns at once."""
        with self._change:
            self._asked.setdefault(task, time.monotonic() + wait)
            if self._thread.ident is None:
                self._thread.start()
            self._change.notify_all()

    @property
    def busy(self) -> float:
        """Seconds that the task under way has taken so far; 0 when there is none."""
        return time.monotonic() - self._since if self._busy else 0.0

    def drain(self, patience: float, moved: Callable[[], object] = lambda: None) -> int:
        """Try what is left, and once more what failed; returns what is not done.

        For at most `patience` seconds, counted anew whenever `moved` says something else: many tasks take long.
        The task under way is not broken off then, but no other is begun.
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
            if self._thread.is_alive():
                _left.append(self._thread)
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
        """The task asked first, waiting for one; None when all is done for good."""
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
        """Put `task` in front and rest; False when there is to be no other try."""
        with self._change:
            self._asked = {task: 0.0} | self._asked
            self._busy = False
            if self._last:
                return False
            self._change.wait_for(lambda: self._last, self._pause)
            return True
