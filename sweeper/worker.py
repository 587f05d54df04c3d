"""What a worker does with a job, and the process that does it for the local executor."""

import argparse
import contextlib
import ctypes
import errno
import os
import queue
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sweeper import fake, pipe, training
from sweeper.paths import RunFolder
from sweeper.trial import Done, Failed, Job, Progress, Trouble, Word
from trainers import files
from trainers.config import Epoch, Scores
from trainers.errors import Diverged, UserError

if TYPE_CHECKING:
    import numpy as np

HEARTBEAT = 2.0  # seconds
PR_SET_PDEATHSIG = 1  # linux/prctl.h

Messages = Generator[Progress, bool | None, Done | Failed]


class Trainer(Protocol):
    """What `training` and `fake` both are."""

    def train(self, job: Job, fit: Sequence[str], device: str) -> Iterator[Epoch]: ...

    def predict(self, job: Job, weights: Path, device: str) -> "tuple[np.ndarray, Scores | None] | None": ...


def run(job: Job, device: str) -> Messages:
    """The messages of one job: yields Progress and wants True (go on) or False (stop); returns how it ended.

    Whatever training raises becomes the job's Failed; nothing but a request to end the process leaves this.
    """
    try:
        return (yield from _run(job, device, fake if fake.Switches.read().on else training))
    except Exception as error:  # noqa: BLE001  the boundary: one job's error must not reach the next
        return _failed(job, error)


def advance(messages: Messages, keep: bool | None) -> Progress | Done | Failed:
    """The next message after the answer `keep`, which is None before the first."""
    try:
        return messages.send(keep)
    except StopIteration as end:
        ended: Done | Failed = end.value
        return ended


def _run(job: Job, device: str, trainer: Trainer) -> Messages:
    fit = ("train", "val") if job.kind == "final" else ("train",)
    last = job.stop_after or job.recipe.train.epochs
    for epoch in trainer.train(job, fit, device):
        keep = yield Progress(trial=job.trial, epoch=epoch)
        if epoch.index + 1 >= last:
            break
        if not keep:
            return Done(trial=job.trial, stopped=True)
    scores = _finish(job, device, trainer) if job.kind == "final" else None
    return Done(trial=job.trial, scores=scores)


def _finish(job: Job, device: str, trainer: Trainer) -> Scores | None:
    """Leave the model and its predictions on test in the folder; returns test's scores where test has labels."""
    import numpy as np

    folder = RunFolder(job.folder)
    with folder.best.open("rb") as source, files.whole(folder.model) as target:
        shutil.copyfileobj(source, target)
    predicted = trainer.predict(job, folder.model, device)
    if predicted is None:
        return None
    logits, scores = predicted
    with files.whole(folder.test_logits) as file:
        np.save(file, logits)
    return scores


# ------------------------------------------------------------------------------------------- errors
def _failed(job: Job, error: Exception) -> Failed:
    said = (error.what if isinstance(error, UserError) else str(error)).strip()
    first = said.splitlines()[0] if said else ""
    named = first and isinstance(error, UserError | Diverged)
    text = first if named else f"{type(error).__name__}: {first}".rstrip(": ")
    detail = "".join(traceback.format_exception(error))
    return Failed(trial=job.trial, trouble=_trouble(error), text=text[:300], detail=detail)


def _trouble(error: Exception) -> Trouble:
    """Torch's errors are known by name and text: a worker that never loaded torch must not load it here."""
    if isinstance(error, Diverged):
        return "nan"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk"
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"} or "DefaultCPUAllocator: can't allocate memory" in str(error):
        return "oom"
    return "error"


# ------------------------------------------------------------------------------------------ process
class Channel:
    """The worker's end of the pipe: orders come in, words go out; the process ends with the other end."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._writing = threading.Lock()
        self._orders: queue.SimpleQueue[pipe.Start | pipe.Answer] = queue.SimpleQueue()
        for loop in (self._listen, self._beat):
            threading.Thread(target=loop, daemon=True).start()

    def order(self) -> pipe.Start | pipe.Answer:
        """The coordinator's next word, waited for."""
        return self._orders.get()

    def send(self, word: Word) -> None:
        with self._writing:
            pipe.send(self._channel, word)

    def _listen(self) -> None:
        lines = pipe.Lines(self._channel)
        while (received := lines.read()) is not None:
            for line in received:
                self._orders.put(pipe.ORDER.validate_json(line))
        _end()

    def _beat(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                time.sleep(HEARTBEAT)
                self.send(pipe.Alive())


def _end() -> None:
    """End this process and whatever it started, at once: every file is written whole or not at all."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _die_with(parent: int) -> None:
    """Have the kernel end this process when `parent` ends, however that ends. Elsewhere the pipe's end does it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _log_to(folder: RunFolder) -> None:
    """Send what this process prints, torch's own output included, to the end of the run's log."""
    handle = os.open(folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(handle, stream.fileno())
    os.close(handle)


def serve(channel: Channel) -> None:
    """Do one job after another; the coordinator ends this by closing its end of the pipe."""
    while isinstance(start := channel.order(), pipe.Start):
        _log_to(RunFolder(start.job.folder))
        messages = run(start.job, start.device)
        message = advance(messages, None)
        while isinstance(message, Progress):
            channel.send(message)
            answer = channel.order()
            message = advance(messages, isinstance(answer, pipe.Answer) and answer.keep)
        if isinstance(message, Failed):
            print(message.detail, flush=True)
        channel.send(message)


def main() -> None:
    """`python -m sweeper.worker --fd N --parent PID`: serve the socket inherited as N."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args()
    _die_with(given.parent)
    serve(Channel(socket.socket(fileno=given.fd)))


if __name__ == "__main__":
    main()
