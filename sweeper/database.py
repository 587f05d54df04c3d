"""The file of Optuna's database: opened in the right mode, and its troubles told in words."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import SCHEMA_VERSION

from sweeper import mounts, paths, room
from sweeper.errors import DiskFull, EnvironmentFault
from sweeper.patient import Connection, Patience, connect

TROUBLES = (StorageInternalError, sqlalchemy.exc.DatabaseError, sqlite3.DatabaseError)
OURS = (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.NotSupportedError)  # our own mistakes
PAGE = 4096  # bytes of a page of SQLite's, as it is made
ANEW = "move it away, with its -wal and -shm beside it: the same command makes another from the run folders"
PLACE = "mend its permissions, or name another folder with SWEEP_HOME"
REMEDIES = {"not a database": ANEW, "malformed": ANEW, "readonly": PLACE, "unable to open": PLACE}


def opened(path: Path, patience: Patience) -> RDBStorage:
    """The database at `path`, made if need be; `patience` waits while it is locked.

    Readers (`sweep status`, a dashboard) do not block the writer, but on some file systems, where they must.
    The address holds no path: one with a `?`, `#`, `%` or `{` would be misread.
    """
    if kind := mounts.network(path.parent):
        patience.say(mounts.words(paths.home(), kind))
    with closing(connect(path, patience)) as connection:
        connection.execute(f"PRAGMA journal_mode={mounts.journal(path.parent)}")
        _refuse_newer(connection, path)
    address, settings = "sqlite:///study.db", {"creator": lambda: connect(path, patience, check_same_thread=False)}
    try:
        return RDBStorage(address, engine_kwargs=settings)
    except RuntimeError as error:
        if "no longer compatible" not in str(error):
            raise
        raise _other_version(path, _writer(path, patience)) from error


def _refuse_newer(connection: Connection, path: Path) -> None:
    """Raise EnvironmentFault for tables laid out as no Optuna of today does; Optuna itself looks at less."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'version_info'").fetchone():
        row = connection.execute("SELECT schema_version, library_version FROM version_info").fetchone()
        if row and row[0] > SCHEMA_VERSION:
            raise _other_version(path, row[1])


def _writer(path: Path, patience: Patience) -> str:
    with closing(connect(path, patience)) as connection:
        row = connection.execute("SELECT library_version FROM version_info").fetchone()
    return row[0] if row else "another version"


def _other_version(path: Path, writer: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"the study's database is of Optuna {writer}; this is Optuna {optuna.__version__}, which cannot read it",
        where=str(path),
        help=f"pip install -U optuna, or optuna=={writer}; or {ANEW}",
    )


@contextmanager
def trouble_with(database: Path) -> Iterator[None]:
    """What is wrong with the file is told as such, as DiskFull where no more can be written to its disk."""
    try:
        yield
    except Exception as error:
        said = _said(error)
        if not isinstance(said or error, TROUBLES) or isinstance(said, OURS):
            raise
        cause = str(said or getattr(error, "orig", None) or error.__cause__ or error).strip().splitlines()[0]
        if said and _no_room(said, database):
            raise DiskFull(str(database), cause) from error
        remedies = (remedy for words, remedy in REMEDIES.items() if words in cause)
        raise EnvironmentFault(
            f"the study's database cannot be used: {cause}",
            where=str(database),
            help=next(remedies, "look at its disk and run the same command again"),
        ) from error


def _said(error: BaseException | None) -> sqlite3.Error | None:
    """What SQLite said, under all that Optuna and SQLAlchemy made of it."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__
    return error


def _no_room(said: sqlite3.Error, database: Path) -> bool:
    """A used up quota, or limit on a file's size, is any failed write to SQLite: so the disk itself is asked."""
    name = getattr(said, "sqlite_errorname", "")
    return name == "SQLITE_FULL" or (
        name.startswith("SQLITE_IOERR") and not room.takes(database.parent, _length(database))
    )


def _length(database: Path) -> int:
    """Bytes that the larger of the database's files has, and one more page."""
    return max(path.stat().st_size for path in database.parent.glob(f"{database.name}*")) + PAGE
