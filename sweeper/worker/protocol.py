"""The pipe between the coordinator and a worker: one JSON line a word, both ways. Never pickle."""

import socket
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from sweeper.trial import Done, Failed, Job, Message, Progress
from trainers.support.position import Position


class Start(Message):
    """To the worker: run `job` on `device`, the device as the worker's torch names it."""

    tag: Literal["start"] = "start"
    job: Job
    device: str
    threads: int = Field(ge=1, description="of the CPU")
    alone: bool = Field(description="nobody else gets a trial on this device")


class Answer(Message):
    """To the worker, after Progress: go on, with so many threads of the CPU, or stop."""

    tag: Literal["answer"] = "answer"
    keep: bool
    threads: int = Field(ge=1)


class Heartbeat(Message):
    """From the worker, every few seconds: the process is not stopped; and sooner where it has got on."""

    tag: Literal["alive"] = "alive"
    at: Position | None = Field(None, description="how far the epoch is")


Order = Annotated[Start | Answer, Field(discriminator="tag")]
Report = Annotated[Progress | Done | Failed | Heartbeat, Field(discriminator="tag")]

ORDER: TypeAdapter[Start | Answer] = TypeAdapter(Order)
REPORT: TypeAdapter[Progress | Done | Failed | Heartbeat] = TypeAdapter(Report)


def send(channel: socket.socket, word: Message) -> None:
    """Write one line; raises OSError when nobody is at the other end."""
    channel.sendall(word.model_dump_json().encode() + b"\n")


class LineReader:
    """Whole lines out of a socket; a line cut short by the death of its writer is dropped."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._rest = b""

    def read(self) -> list[bytes] | None:
        """The lines that one read completes, waiting for bytes if there are none; None at the end."""
        try:
            received = self._channel.recv(1 << 16)
        except ConnectionError:
            return None
        if not received:
            return None
        *lines, self._rest = (self._rest + received).split(b"\n")
        return lines
