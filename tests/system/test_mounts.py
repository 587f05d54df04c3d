"""Where databases lie and whose they are: network file systems, and tables of another MLflow."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sweeper.system import disks
from sweeper.tracking import local_store

# ------------------------------------------------------------------------------- network file systems
MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/export /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/local xfs rw 0 0
//host/share /mnt/my\\040share cifs rw 0 0
me@host:/ /mnt/far fuse.sshfs rw 0 0
nothing
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/home/me/mlruns", "nfs4"),
        ("/home/local/mlruns", ""),
        ("/homely", ""),
        ("/mnt/my share/mlruns", "cifs"),
        ("/mnt/far", "fuse.sshfs"),
        ("/", ""),
    ],
)
def test_the_nearest_mount_says_whether_a_folder_is_on_the_network(place, kind):
    assert disks.network(Path(place), MOUNTS) == kind


@pytest.mark.parametrize(
    ("place", "way"),
    [("/home/me/mlruns", "DELETE"), ("/home/local/mlruns", "WAL"), ("/mnt/copies/mlruns", "DELETE"), ("/", "WAL")],
)
def test_no_index_is_mapped_where_that_does_harm(place, way):
    assert disks.journal(Path(place), MOUNTS + "/dev/sdb1 /mnt/copies btrfs rw 0 0\n") == way


def test_a_system_that_names_no_mounts_has_no_network(tmp_path):
    assert disks.network(tmp_path, "") == ""


# -------------------------------------------------------------------------------------------- MLflow's
@pytest.mark.parametrize(("version", "known"), [(None, ""), ("feedfacecafe", "feedfacecafe")])
def test_tables_of_another_mlflow_are_known_by_their_version(tmp_path, version, known):
    database = tmp_path / "mlflow.db"
    assert local_store.unknown(database) == ""
    with closing(sqlite3.connect(database)) as link:
        link.execute("CREATE TABLE alembic_version (version_num TEXT)")
        link.execute("INSERT INTO alembic_version VALUES (?)", (version or _head(),))
        link.commit()
    assert local_store.unknown(database) == known


def _head() -> str:
    from importlib import util

    home = Path(next(iter(util.find_spec("mlflow").submodule_search_locations)))
    return next(home.glob("store/db_migrations/versions/*_*.py")).name.split("_")[0]
