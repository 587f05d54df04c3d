"""SQLite connections that wait for as long as another program has the file locked, say so, and can be interrupted."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sweeper.progress import talk

TRY = 0.25  # seconds that SQLite itself waits; between two tries signals are heard
SLOW = 5.0  # seconds after which a lock is told
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY)  # not _SNAPSHOT, of which no second try gets rid

Got = TypeVar("Got")


class Patience:
    """Waits for a database as long as it is locked; `say` is told after SLOW seconds, and when it goes on.

    Once the person has `stopped` the sweep, a lock of SLOW seconds or more ends in KeyboardInterrupt: what is not
    written then is in the run folders.
    """

    def __init__(self, name: str, *, stopped: Callable[[], bool] = lambda: False) -> None:
        self.say: Callable[[str], None] = talk
        self._name, self._stopped = name, stopped

    def during(self, act: Callable[[], Got]) -> Got:
        """What `act` returns, as soon as nobody has locked the database."""
        began, told = time.monotonic(), False
        while True:
            try:
                got = act()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in BUSY:
                    raise
            else:
                if told:
                    self.say(f"{self._name} is free again after {time.monotonic() - began:.0f} s; going on")
                return got
            told = self._waited(time.monotonic() - began, told)

    def _waited(self, seconds: float, told: bool) -> bool:
        if seconds < SLOW:
            return told
        if self._stopped():
            self.say(f"{self._name} is still locked by another program; stopped without it")
            raise KeyboardInterrupt
        if not told:
            self.say(f"{self._name} has been locked by another program for {SLOW:.0f} s; waiting")
        return True


class Connection(sqlite3.Connection):
    """A connection whose every statement and commit waits."""

    patience: Patience

    def cursor(self, factory: Any = None) -> Any:  # noqa: ARG002  the signature of the library's
        made = super().cursor(Cursor)
        made.patience = self.patience
        return made

    def execute(self, *words: Any) -> Any:
        return self.cursor().execute(*words)

    def commit(self) -> None:
        self.patience.during(super().commit)


class Cursor(sqlite3.Cursor):
    patience: Patience

    def execute(self, *words: Any) -> "Cursor":
        return self.patience.during(lambda: super(Cursor, self).execute(*words))

    def executemany(self, *words: Any) -> "Cursor":
        return self.patience.during(lambda: super(Cursor, self).executemany(*words))


def connect(path: Path, patience: Patience, **settings: Any) -> Connection:
    """A connection to the database at `path`, made if it is not there."""
    made = sqlite3.connect(path, timeout=TRY, factory=Connection, **settings)
    made.patience = patience
    return made
