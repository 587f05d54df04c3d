"""MLflow's database in a folder: made whole, or not at all."""

import fcntl
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4


def create(database: Path, touch: Callable[[str], Any]) -> None:
    """Have `touch` make the tables, one process at a time: two at once leave a file that stays broken.

    So does a full disk, or a kill. A new database is made under another name, never the same twice (MLflow keeps
    connections to what it once opened), and takes its own when all of it is there.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_suffix(".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if database.exists():
            touch(f"sqlite:///{database}")
            return
        new = database.with_name(f".{database.name}.{uuid4().hex[:8]}.tmp")
        try:
            touch(f"sqlite:///{new}")
            new.rename(database)
        finally:
            for rest in database.parent.glob(f".{database.name}.*"):
                rest.unlink()
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
