"""How a person stops a sweep: once politely, twice at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from sweeper.errors import Stopped

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Stop:
    """Whether the sweep has been asked to end: after the epochs that are under way."""

    signal: int | None = None
    again: bool = False  # asked twice: at once

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What the shell is to see: 130 for SIGINT, 143 for SIGTERM and for a terminal that is gone."""
        return 128 + (signal.SIGINT if self.signal == signal.SIGINT else signal.SIGTERM)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Inside, a second signal ends what is under way as Stopped, in words and without a traceback."""
        try:
            yield
        except KeyboardInterrupt:
            if not self.requested:
                raise
            raise Stopped(self.exit_code) from None


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Inside, the first signal sets `stop` and a second one raises KeyboardInterrupt wherever the program is."""

    def hear(number: int, _: FrameType | None) -> None:
        stop.again = stop.requested
        stop.signal = number
        if stop.again:
            raise KeyboardInterrupt

    heeded = [number for number in HEARD if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {number: signal.signal(number, hear) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
