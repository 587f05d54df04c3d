"""MLflow's own database file, and how its library is kept quiet. The library itself is not loaded here."""

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

ESCAPED = set("%?#")  # in a path that is part of an address


def hush() -> None:
    """Set MLflow's patience, and keep its chatter off the terminal: what it cannot do, the caller tells."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for results
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(mlflow|sqlalchemy|alembic|google)\b")


def create(database: Path, touch: Callable[[str], Any]) -> None:
    """Have `touch` make the tables, one process at a time: two at once leave a file that stays broken.

    So does a full disk, or a kill. A new database is made under another name, never the same twice (MLflow keeps
    connections to what it once opened), and takes its own when all of it is there.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_suffix(".lock"), fallback_to_soft=False):
        if database.exists():
            touch(address(database))
            return
        new = database.with_name(f".{database.name}.{uuid4().hex[:8]}.tmp")
        atexit.register(
            _remove, new.parent, f"{new.name}*"
        )  # this thread may be in the midst of it when the program ends
        try:
            touch(address(new))
            failpoint("founded mlflow.db")
            new.rename(database)
        finally:
            _remove(database.parent, f".{database.name}.*")
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(f"PRAGMA journal_mode={disks.journal(database.parent)}")


def _remove(folder: Path, pattern: str) -> None:
    """What is left of a database that was being made."""
    for rest in folder.glob(pattern):
        rest.unlink(missing_ok=True)


def address(database: Path) -> str:
    """Where MLflow finds the file.

    What an address would misread is escaped as the SQL library here has it. The driver is then named because MLflow
    makes the folders of a plain `sqlite:///`, and would make one with the escapes in its name.
    """
    if not set(str(database)) & ESCAPED:
        return f"sqlite:///{database}"
    from sqlalchemy.engine import URL

    return URL.create("sqlite+pysqlite", database=str(database)).render_as_string()


def trouble(database: Path) -> tuple[str, str] | None:
    """Why this MLflow cannot use its database, and what to do; None where it can, as far as is seen from outside."""
    version, ours = unknown(database), metadata.version("mlflow")
    if not version:
        return None
    remedy = f"install that MLflow, or move {database} away: the next `sweep run` or `sweep ui` makes another"
    what = f"{database.name} is of another MLflow: {ours}, which is here, does not know its tables ({version})"
    return what, f"{remedy} from the run folders"


def unknown(database: Path) -> str:
    """The version of the tables in a database that this MLflow does not know, or nothing."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=2)) as link:
            ((version,),) = link.execute("SELECT version_num FROM alembic_version").fetchall()
    except (sqlite3.Error, ValueError):
        return ""  # not made yet, or in a trouble that MLflow itself will tell
    spec = util.find_spec("mlflow")
    homes = [Path(home) for home in (spec.submodule_search_locations or ())] if spec else []
    known = [path for home in homes for path in home.glob(f"store/db_migrations/versions/{version}_*.py")]
    return "" if known or not homes else str(version)
