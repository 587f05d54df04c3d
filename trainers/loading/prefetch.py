"""Prefetching: a side thread makes the next item while the last one is used; for a GPU, on its own stream."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import is_dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

Asked = TypeVar("Asked")
Made = TypeVar("Made")


def prefetch(
    asked: Sequence[Asked], make: Callable[[Asked], Made], device: torch.device, depth: int = 1
) -> Iterator[Made]:
    """Yield `make(one)` for every item, in order, at most `depth` of them ahead of use.

    The results are tensors, or dataclasses with tensors. On CUDA, the host does not wait for the device: the caller's
    stream waits for that of the side thread. A process with one CPU thread makes each item itself, when it is needed.
    """
    if device.type != "cuda" and torch.get_num_threads() == 1:
        yield from map(make, asked)
        return
    stream = _stream(device) if device.type == "cuda" else None

    def work(one: Asked) -> tuple[Made, torch.cuda.Event | None]:
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            made = make(one)
            return made, stream.record_event() if stream is not None else None

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        coming: deque[Future[tuple[Made, torch.cuda.Event | None]]] = deque()
        try:
            for one in asked:
                coming.append(pool.submit(work, one))
                if len(coming) > depth:
                    yield _arrived(*coming.popleft().result(), device)
            while coming:
                yield _arrived(*coming.popleft().result(), device)
        finally:
            pool.shutdown(cancel_futures=True)  # for a caller that leaves early


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return one stream for the life of the process: the allocator reuses memory only on the requesting stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _arrived(made: Made, event: torch.cuda.Event | None, device: torch.device) -> Made:
    """Make another stream's result safe here: wait for its event, and keep its memory until this stream is done."""
    if event is not None:
        here = torch.cuda.current_stream(device)
        here.wait_event(event)
        for tensor in tensors(made):
            tensor.record_stream(here)
    return made


def tensors(made: object) -> Iterator[Tensor]:
    """Yield every tensor in a dataclass and in the dataclasses inside it."""
    if isinstance(made, Tensor):
        yield made
    elif is_dataclass(made):
        for part in vars(made).values():
            yield from tensors(part)
