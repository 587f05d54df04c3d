"""The main loop of a local worker: reads jobs from a pipe, one after another, and ends with the pipe."""

import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time

from sweeper.store.paths import RunFolder
from sweeper.trial import Done, Failed, Message, Progress
from sweeper.worker import protocol
from sweeper.worker.job import advance, failed, run
from trainers.support import files
from trainers.support.position import Cursor

HEARTBEAT = 2.0  # seconds
GLANCE = 0.25  # seconds between two checks of the position within the epoch


class Connection:
    """The worker's end of the pipe: orders come in, messages go out; the process ends when the other end closes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._writing = threading.Lock()
        self.cursor = Cursor()
        self._orders: queue.SimpleQueue[protocol.Start | protocol.Answer] = queue.SimpleQueue()
        for loop in (self._listen, self._beat):
            threading.Thread(target=loop, daemon=True).start()

    def order(self) -> protocol.Start | protocol.Answer:
        """Wait for the coordinator's next order and return it."""
        return self._orders.get()

    def send(self, word: Message) -> None:
        with self._writing:
            protocol.send(self._channel, word)

    def _listen(self) -> None:
        lines = protocol.LineReader(self._channel)
        while (received := lines.read()) is not None:
            for line in received:
                self._orders.put(protocol.ORDER.validate_json(line))
        _end()

    def _beat(self) -> None:
        told, said = None, time.monotonic()
        with contextlib.suppress(OSError):
            while True:
                time.sleep(GLANCE)
                at, now = self.cursor.at, time.monotonic()
                if at != told or now - said >= HEARTBEAT:
                    self.send(protocol.Heartbeat(at=at))
                    told, said = at, now


def _end() -> None:
    """Kill this process and everything it started, at once; this is safe since all writes are atomic."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _log_to(folder: RunFolder) -> None:
    """Append everything this process prints, including torch's own output, to the run's log."""
    handle = os.open(folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(handle, stream.fileno())
    os.close(handle)


def serve(channel: Connection) -> None:
    """Run one job after another until the coordinator closes its end of the pipe."""
    while isinstance(start := channel.order(), protocol.Start):
        try:
            _log_to(RunFolder(start.job.folder))
        except OSError as error:
            channel.send(failed(start.job, error))
            continue
        messages = run(start.job, start.device, threads=start.threads, alone=start.alone, cursor=channel.cursor)
        message = advance(messages, None)
        while isinstance(message, Progress):
            channel.send(message)
            answer = channel.order()
            keep = isinstance(answer, protocol.Answer) and answer.keep
            if isinstance(answer, protocol.Answer) and "trainers.support.device" in sys.modules:
                sys.modules["trainers.support.device"].use_threads(answer.threads)
            message = advance(messages, keep)
        if isinstance(message, Failed):
            _note(message.detail)
        del messages
        if isinstance(message, Done):  # after an error the device may no longer respond
            _release()
        channel.send(message)


def _note(text: str) -> None:
    """Write `text` to the log; a full disk is reported by the next message instead."""
    try:
        print(text, flush=True)
    except OSError as error:
        if not files.full(error):
            raise


def _release() -> None:
    """Free the memory that the job left on its GPU and pinned on the host, for the next job from any process."""
    if "trainers.support.device" in sys.modules:
        sys.modules["trainers.support.device"].release(pinned=True)
