"""MLflow's local database file, and settings that keep its library quiet. Does not load the library."""

import atexit
import logging
import os
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from importlib import metadata, util
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock

from sweeper.system import disks
from trainers.support.failpoints import failpoint

ESCAPED = set("%?#")  # characters that need escaping in a path that is part of an address


def hush() -> None:
    """Set MLflow's timeouts, and keep its log messages off the terminal: the caller reports failures."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for results
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(mlflow|sqlalchemy|alembic|google)\b")


def create(database: Path, touch: Callable[[str], Any]) -> None:
    """Create the tables with `touch`, one process at a time: two at once leave a permanently broken file.

    So does a full disk, or a kill. Therefore, a new database is created under a unique temporary name (MLflow keeps
    connections to files that it once opened), and renamed when it is complete.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_suffix(".lock"), fallback_to_soft=False):
        if database.exists():
            touch(address(database))
            return
        new = database.with_name(f".{database.name}.{uuid4().hex[:8]}.tmp")
        atexit.register(_remove, new.parent, f"{new.name}*")  # the program may exit while this thread is creating it
        try:
            touch(address(new))
            failpoint("founded mlflow.db")
            new.rename(database)
        finally:
            _remove(database.parent, f".{database.name}.*")
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(f"PRAGMA journal_mode={disks.journal(database.parent)}")


def _remove(folder: Path, pattern: str) -> None:
    """Remove the rest of a database that was being created."""
    for rest in folder.glob(pattern):
        rest.unlink(missing_ok=True)


def address(database: Path) -> str:
    """Return the address of the database file for MLflow.

    Special characters are escaped as the installed SQL library does it. In that case the address names the driver,
    because MLflow creates the folders of a plain `sqlite:///`, with the escapes in their names.
    """
    if not set(str(database)) & ESCAPED:
        return f"sqlite:///{database}"
    from sqlalchemy.engine import URL

    return URL.create("sqlite+pysqlite", database=str(database)).render_as_string()


def trouble(database: Path) -> tuple[str, str] | None:
    """Return why this MLflow cannot use its database, and a remedy; None if no reason is visible from outside."""
    version, ours = unknown(database), metadata.version("mlflow")
    if not version:
        return None
    remedy = f"install that MLflow, or move {database} away: the next `sweep run` or `sweep ui` creates a new one"
    what = f"{database.name} is from another MLflow version: MLflow {ours} does not know its tables ({version})"
    return what, f"{remedy} from the run folders"


def unknown(database: Path) -> str:
    """Return the version of a database's tables if this MLflow does not know it, else ""."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=2)) as link:
            ((version,),) = link.execute("SELECT version_num FROM alembic_version").fetchall()
    except (sqlite3.Error, ValueError):
        return ""  # not created yet, or an error that MLflow itself will report
    spec = util.find_spec("mlflow")
    homes = [Path(home) for home in (spec.submodule_search_locations or ())] if spec else []
    known = [path for home in homes for path in home.glob(f"store/db_migrations/versions/{version}_*.py")]
    return "" if known or not homes else str(version)
