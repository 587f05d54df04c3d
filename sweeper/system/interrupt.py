"""Ctrl-C where nothing must be finished first: one word, and the end. A sweep under way listens for itself."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


def heed() -> None:
    """Take Ctrl-C over from Python, whose KeyboardInterrupt libraries turn into tracebacks; ignored, it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    """At once, as a kill would: files are written whole or not at all, and who was started ends with us."""
    try:
        os.write(2, b"stopped\n")
    finally:
        os._exit(128 + number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how this is meant to end: both leave the block quietly."""

    def hear(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        for number, old in before.items():
            signal.signal(number, old)
