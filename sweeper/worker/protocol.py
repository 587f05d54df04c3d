"""The pipe between the coordinator and a worker: one JSON line per message, both ways. Never pickle."""

import socket
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from sweeper.trial import Done, Failed, Job, Message, Progress
from trainers.support.position import Position


class Start(Message):
    """Sent to the worker: run `job` on `device`, named as in the worker's torch."""

    tag: Literal["start"] = "start"
    job: Job
    device: str
    threads: int = Field(ge=1, description="CPU threads")
    alone: bool = Field(description="no other trial runs on this device")


class Answer(Message):
    """Sent to the worker after Progress: continue with this number of CPU threads, or stop."""

    tag: Literal["answer"] = "answer"
    keep: bool
    threads: int = Field(ge=1)


class Heartbeat(Message):
    """Sent by the worker every few seconds, and sooner if it has made progress: the process is running."""

    tag: Literal["alive"] = "alive"
    at: Position | None = Field(None, description="position within the epoch")


Order = Annotated[Start | Answer, Field(discriminator="tag")]
Report = Annotated[Progress | Done | Failed | Heartbeat, Field(discriminator="tag")]

ORDER: TypeAdapter[Start | Answer] = TypeAdapter(Order)
REPORT: TypeAdapter[Progress | Done | Failed | Heartbeat] = TypeAdapter(Report)


def send(channel: socket.socket, word: Message) -> None:
    """Write one line. Raises OSError if the other end is closed."""
    channel.sendall(word.model_dump_json().encode() + b"\n")


class LineReader:
    """Reads complete lines from a socket; a line cut short by the death of its writer is dropped."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._rest = b""

    def read(self) -> list[bytes] | None:
        """Wait for bytes and return the lines that they complete; None at the end of the stream."""
        try:
            received = self._channel.recv(1 << 16)
        except ConnectionError:
            return None
        if not received:
            return None
        *lines, self._rest = (self._rest + received).split(b"\n")
        return lines
