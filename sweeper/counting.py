"""A counter on stderr for long work that is no sweep: checking images, decoding them."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweeper import progress


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Call what it gives with done and total: one moving line on a terminal, a line every few seconds elsewhere."""
    lively, out = progress.lively(sys.stderr), progress.Deafened(sys.stderr)
    pause = 0.1 if lively else 5.0
    following, moving = time.monotonic() + pause, False

    def count(done: int, total: int) -> None:
        nonlocal following, moving
        if time.monotonic() < following and not (moving and done == total):
            return
        following, moving = time.monotonic() + pause, lively
        out.write(f"\r{what}: {done}/{total}" if lively else f"{what}: {done}/{total}\n")
        out.flush()

    try:
        yield count
    finally:
        if moving:
            out.write("\n")
            out.flush()
