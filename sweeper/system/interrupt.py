"""Ctrl-C where nothing has to finish first: print one word and exit. A running sweep has its own handler."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


def heed() -> None:
    """Replace Python's KeyboardInterrupt, which libraries turn into tracebacks; an ignored Ctrl-C stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    """Exit at once, as a kill would: writes are atomic, and child processes end with this one."""
    try:
        os.write(2, b"stopped\n")
    finally:
        os._exit(128 + number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Leave the block quietly on Ctrl-C or SIGTERM, the normal ways to end it."""

    def handle(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        for number, old in before.items():
            signal.signal(number, old)
