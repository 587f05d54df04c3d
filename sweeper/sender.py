"""One thread that carries news somewhere slow or dead, so that nobody waits for it."""

import threading
import time
from collections.abc import Callable

PAUSE = 30.0  # seconds without an attempt after one has failed
LINGER = 0.25  # seconds after the first news in which more of it may come, to be carried in one go


class Sender:
    """Does errands by name, in the order asked, each again until it succeeds.

    Asking twice before the errand is done is asking once. After a failure it rests for `pause` seconds, then
    begins again with the errand that failed. `do` runs in the thread; so does `failed`.
    """

    def __init__(
        self, do: Callable[[str], None], failed: Callable[[Exception], None], *, pause: float = PAUSE
    ) -> None:
        self._do, self._failed, self._pause = do, failed, pause
        self._asked: dict[str, None] = {}
        self._busy = self._last = False
        self._since = 0.0
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="sender", daemon=True)

    def ask(self, errand: str) -> None:
        """Have `errand` done some time; returns at once."""
        with self._change:
            self._asked.setdefault(errand)
            if self._thread.ident is None:
                self._thread.start()
            self._change.notify_all()

    @property
    def busy(self) -> float:
        """Seconds that the errand under way has taken so far; 0 when there is none."""
        return time.monotonic() - self._since if self._busy else 0.0

    def finish(self, patience: float) -> int:
        """Try what is left, and once more what failed, for at most `patience` seconds; returns what is not done."""
        deadline = time.monotonic() + patience
        with self._change:
            self._last = True
            self._change.notify_all()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._change:
            return len(self._asked) + self._busy

    def _work(self) -> None:
        while (errand := self._next()) is not None:
            try:
                self._do(errand)
            except Exception as error:  # noqa: BLE001  (whatever it is, the thread must live on)
                self._failed(error)
                if not self._again(errand):
                    return
            else:
                self._busy = False

    def _next(self) -> str | None:
        """The errand asked first, waiting for one; None when all is done for good."""
        with self._change:
            if not self._asked:
                self._change.wait_for(lambda: self._asked or self._last)
                self._change.wait_for(lambda: self._last, LINGER)
            errand = next(iter(self._asked), None)
            if errand is not None:
                del self._asked[errand]
                self._busy, self._since = True, time.monotonic()
            return errand

    def _again(self, errand: str) -> bool:
        """Put `errand` in front and rest; False when there is to be no other try."""
        with self._change:
            self._asked = {errand: None} | self._asked
            self._busy = False
            if self._last:
                return False
            self._change.wait_for(lambda: self._last, self._pause)
            return True
