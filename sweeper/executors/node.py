"""The part of a sweep that runs on a node of any cluster: messages in, trials run, messages out."""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from sweeper.executors.local import Local
from sweeper.system import devices
from sweeper.system.devices import Count
from sweeper.trial import Job, Message, WorkerMessage
from trainers.support.position import Position


class NodeSettings(Message):
    """Sent to a node: the sweep that it works for."""

    folder: Path = Field(description="current folder, to which the data set's path is relative")
    lock: Path = Field(description="the study's lock, which every node must see with the same content")
    content: str
    image: Path = Field(description="an image of the data set, which every node must see as well")
    per_device: Count
    threads: int = Field(ge=1, description="CPU threads for the whole node")
    variables: Mapping[str, str] = Field(description="environment variables of ours, SWEEP_...")


class Opened(Message):
    """Sent by a node: it is ready, or unusable because of `fault`."""

    name: str = ""
    free: int = 0
    fault: str = ""


class NodeRequest(Message):
    """Sent to a node: trials to start, and answers to those that reported an epoch."""

    starts: tuple[Job, ...] = ()
    answers: tuple[tuple[str, bool], ...] = ()


class NodeReply(Message):
    """Sent by a node: the messages of its workers, and the number of trials that may start there now."""

    messages: tuple[WorkerMessage, ...]
    free: int
    positions: Mapping[str, Position] = Field({}, description="position of running trials within their epochs")


class NodeExecutor:
    """The local executor of a node, working for a sweep on another machine.

    Requests and replies are JSON. Calls come one at a time, in the main thread.
    """

    def __init__(self) -> None:
        self._local: Local | None = None
        self._held: deque[Job] = deque()  # jobs waiting until the device takes one more

    def take_up(self, setting: str, gpus: Sequence[int | str]) -> str:
        """Open slots on these GPUs, or on the CPU if there are none; return Opened as JSON."""
        given = NodeSettings.model_validate_json(setting)
        os.environ.update(given.variables)
        if fault := _unshared(given):
            return Opened(fault=fault).model_dump_json()
        os.chdir(given.folder)
        slots = devices.assigned(gpus, given.per_device)
        threads = given.threads if given.per_device == "auto" else max(1, given.threads // len(slots))
        self._local = Local.on([replace(slot, threads=threads) for slot in slots], given.per_device)
        name = ",".join(f"cuda:{one}" for one in gpus) or "cpu"
        return Opened(name=name, free=self._local.free()).model_dump_json()

    def exchange(self, order: str, timeout: float) -> str:
        """Carry out a NodeRequest, wait at most `timeout` seconds for messages, and return a NodeReply as JSON."""
        if self._local is None:
            raise RuntimeError("not open")
        given = NodeRequest.model_validate_json(order)
        self._held.extend(given.starts)
        while self._held and self._local.free():
            self._local.start(self._held.popleft())
        for key, keep in given.answers:
            self._local.answer(key, keep)
        words = [self._local.next(timeout)]
        while words[-1]:
            words.append(self._local.next(0.0))
        free = max(0, self._local.free() - len(self._held))
        messages = tuple(word for word in words if word)
        return NodeReply(messages=messages, free=free, positions=self._local.positions()).model_dump_json()

    def close(self) -> None:
        """End the workers."""
        if self._local:
            self._local.close(kill=True)


def _unshared(given: NodeSettings) -> str:
    """Return why this node cannot work for the sweep; empty if it sees the sweep's files."""
    if not given.folder.is_dir():
        return f"does not see the folder {given.folder}"
    try:
        same = given.lock.read_text(encoding="utf-8") == given.content
    except OSError:
        same = False
    if not same:
        return f"does not see the files of {given.lock.parent}"
    return "" if (given.folder / given.image).is_file() else f"does not see {given.image}"
