"""Signals that stop a sweep: the first lets epochs finish, the second stops it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from sweeper.errors import Stopped

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Stop:
    """A request to stop the sweep after the current epochs."""

    signal: int | None = None
    again: bool = False  # requested twice: stop at once

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code: 130 for SIGINT, 143 for SIGTERM and for a closed terminal."""
        return 128 + (signal.SIGINT if self.signal == signal.SIGINT else signal.SIGTERM)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the KeyboardInterrupt of a second signal into Stopped: a message instead of a traceback."""
        try:
            yield
        except KeyboardInterrupt:
            if not self.requested:
                raise
            raise Stopped(self.exit_code) from None


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Inside the block, the first signal sets `stop`; the second raises KeyboardInterrupt wherever the program is."""

    def handle(number: int, _: FrameType | None) -> None:
        stop.again = stop.requested
        stop.signal = number
        if stop.again:
            raise KeyboardInterrupt

    handled = [number for number in HANDLED if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
