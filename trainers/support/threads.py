"""Work that threads share: they are started once, and not for each batch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache


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
