"""Files in MLflow after mlruns was moved: its database holds absolute places, which are set right here."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

PATIENCE = 5.0  # seconds to wait for a database that somebody else has locked


def follow(database: Path, artifacts: Path) -> int:
    """Have the experiments in `database` that keep files in a folder of that name elsewhere keep them in `artifacts`.

    Returns how many there were. A database that is not laid out as MLflow's is left as it is, for MLflow to judge.
    """
    if not database.exists():
        return 0
    try:
        with closing(sqlite3.connect(database, timeout=PATIENCE)) as link, link:
            known = link.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
            strays = [(ident, place) for ident, place in known if _strayed(place or "", artifacts)]
            for ident, place in strays:
                _repoint(link, ident, place, (artifacts / _folder(place).name).as_uri())
            return len(strays)
    except sqlite3.DatabaseError:
        return 0


def _strayed(place: str, artifacts: Path) -> bool:
    folder = _folder(place).parent
    return urlsplit(place).scheme == "file" and folder.name == artifacts.name and folder != artifacts


def _folder(place: str) -> Path:
    return Path(unquote(urlsplit(place).path))


def _repoint(link: sqlite3.Connection, ident: int, old: str, new: str) -> None:
    link.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, ident))
    inside = "substr(artifact_uri, 1, length(:old)) = :old"
    moved = f"UPDATE runs SET artifact_uri = :new || substr(artifact_uri, length(:old) + 1) WHERE {inside}"  # noqa: S608
    link.execute(moved, {"old": old, "new": new})
