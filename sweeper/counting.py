"""A counter on stderr for long work that is no sweep: checking images, decoding them."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sweeper import progress

SOON = 0.1  # seconds; work that takes less shows no bar
PAUSE = 5.0  # seconds between two lines

Count = Callable[[int, int], None]


@contextmanager
def counting(what: str) -> Iterator[Count]:
    """Call what it gives with done and total: a bar on a terminal, a line every few seconds elsewhere."""
    if not progress.lively(sys.stderr):
        yield _lines(what)
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
    bar = Progress(*columns, console=progress.console(progress.Deafened(sys.stderr)), redirect_stdout=False)
    task, began = bar.add_task(what, total=None), time.monotonic()

    def count(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if time.monotonic() > began + SOON:
            bar.start()

    try:
        yield count
    finally:
        bar.stop()


def _lines(what: str) -> Count:
    following = time.monotonic() + PAUSE

    def count(done: int, total: int) -> None:
        nonlocal following
        if time.monotonic() >= following:
            following = time.monotonic() + PAUSE
            progress.talk(f"{what}: {done}/{total}")

    return count
