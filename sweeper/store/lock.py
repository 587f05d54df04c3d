"""The lock that makes one process the sole writer of a study."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from sweeper.errors import StudyHeld
from trainers.support.files import full

LOCK_TIMEOUT_S = 0.5  # seconds; `holder` takes the lock for an instant, which must not keep a sweep from starting


class Holder(BaseModel):
    """The process that holds a study; `started` is in Unix seconds."""

    pid: int
    host: str
    started: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lock:
    """A study held by this process; the system releases it when the process ends, however it ends.

    Raises StudyHeld, naming the holder, if another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(
            path,
            LOCK_TIMEOUT_S,
            thread_local=False,
            poll_interval=0.02,
            fallback_to_soft=False,
            on_acquired=self._sign,
        )
        try:
            self._lock.acquire()
        except Timeout:
            raise StudyHeld(
                f"{_read(path) or 'another process'} is running this study",
                where=str(path),
                help="wait for it, stop it, or start another study with --new-study NAME",
            ) from None

    def _sign(self, file: int) -> None:
        """Write this process into the file in place of the last holder; on a full disk the file may stay empty."""
        self._file = os.fstat(file)
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}) + "\n"
        try:
            written = os.pwrite(file, text.encode(), 0)
        except OSError as error:
            if not full(error):
                raise
            written = 0
        os.ftruncate(file, written)

    @property
    def there(self) -> bool:
        """True if it is held and the locked file is still at its path; else another process may hold the study."""
        try:
            return self._lock.is_locked and os.path.samestat(Path(self._lock.lock_file).stat(), self._file)
        except FileNotFoundError:
            return False

    def release(self) -> None:
        self._lock.release()


def acquire(path: Path) -> Lock:
    """Lock `path` until released."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return Lock(path)


def holder(path: Path) -> Holder | None:
    """Return the current holder of the lock at `path`, or None. Only reads the file, which may be another user's; any
    number of processes may do so at once.
    """
    try:
        with path.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _read(path) or Holder(pid=0, host="another machine", started=0)
    return None


def _read(path: Path) -> Holder | None:
    try:
        return Holder.model_validate_json(path.read_bytes())
    except ValidationError:
        return None
