"""Making the next thing in a side thread while the last one is worked on; for a GPU, on a stream of its own."""

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
    """`make(one)` of everything asked for, in order, at most `depth` of them before they are wanted.

    What is made is a tensor, or a dataclass with tensors. On CUDA nobody waits for the device: the stream of the
    caller waits for that of the side thread. A process of one CPU thread makes everything itself, when it is wanted.
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
            pool.shutdown(cancel_futures=True)  # of a caller who leaves early


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for the life of the process: the allocator reuses memory only on the stream that asked for it."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _arrived(made: Made, event: torch.cuda.Event | None, device: torch.device) -> Made:
    """What another stream made: used here after its event, and its memory not reused before this stream is done."""
    if event is not None:
        here = torch.cuda.current_stream(device)
        here.wait_event(event)
        for tensor in tensors(made):
            tensor.record_stream(here)
    return made


def tensors(made: object) -> Iterator[Tensor]:
    """Every tensor in a dataclass, and in the dataclasses in it."""
    if isinstance(made, Tensor):
        yield made
    elif is_dataclass(made):
        for part in vars(made).values():
            yield from tensors(part)
