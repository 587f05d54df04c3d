"""The lock that makes one process the only writer of a study."""

import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from pydantic import BaseModel, ValidationError

from sweeper.errors import StudyHeld
from trainers.files import full

PATIENCE = 0.5  # seconds; `holder` takes the lock for an instant, and must not keep a sweep from starting


class Holder(BaseModel):
    """Who holds a study; `started` in Unix seconds."""

    pid: int
    host: str
    started: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass
class Lock:
    """A lock that is held; the system lets go of it when the process ends, however it ends."""

    file: TextIOWrapper
    path: Path

    @property
    def there(self) -> bool:
        """Whether it is held, and the locked file still lies at its path: else another process may hold the study."""
        if self.file.closed:
            return False
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.file.fileno()))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        self.file.close()


def acquire(path: Path) -> Lock:
    """Hold `path` until released; raises StudyHeld, naming the holder, while another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8")
    deadline = time.monotonic() + PATIENCE
    while not _locked(file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            file.close()
            raise StudyHeld(
                f"{_read(path) or 'another process'} is running this study",
                where=str(path),
                help="wait for it, stop it, or begin another study with --new-study NAME",
            )
        time.sleep(0.02)
    _sign(file)
    return Lock(file, path)


def _sign(file: TextIOWrapper) -> None:
    """Say in the file who holds it, in the place of who did; on a full disk that may stay unsaid."""
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}) + "\n"
    try:
        written = os.pwrite(file.fileno(), text.encode(), 0)
    except OSError as error:
        if not full(error):
            raise
        written = 0
    os.ftruncate(file.fileno(), written)


def holder(path: Path) -> Holder | None:
    """Who holds the lock at `path` now, or None."""
    try:
        with path.open(encoding="utf-8") as file:
            if _locked(file, fcntl.LOCK_SH):
                return None
            return _read(path) or Holder(pid=0, host="another machine", started=0)
    except FileNotFoundError:
        return None


def _locked(file: TextIOWrapper, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> Holder | None:
    try:
        return Holder.model_validate_json(path.read_bytes())
    except ValidationError:
        return None
