"""Study databases that were lost, damaged, or are of another Optuna: made anew from the folders, or said in words."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from played import numbers, opened, outcome, play, uninterrupted, write

from sweeper import mounts, store
from sweeper.errors import EnvironmentFault
from sweeper.paths import StudyFolder

QUICK = "{sampler: random, pruner: {name: median, startup_trials: 2, min_trials: 2, warmup_epochs: 1}}"


pytestmark = pytest.mark.usefixtures("faked")


@pytest.fixture
def half(tmp_path) -> Path:
    """The file of a study of eight trials, of which four have ended and one is open."""
    path = write(tmp_path, search=QUICK, epochs=3, budget="{trials: 8}")
    study = opened(path)
    play(study, 4)
    study.next_job()
    study.close()
    return path


def folder(path: Path) -> StudyFolder:
    return StudyFolder(path.parent / "question")


def remove(database: Path) -> None:
    for path in database.parent.glob("study.db*"):
        path.unlink()


@pytest.mark.parametrize("lose", [remove, lambda database: (remove(database), database.touch())])
def test_a_lost_database_is_made_anew_and_no_number_is_used_twice(half, tmp_path, lose, capsys):
    lose(folder(half).database)
    study = opened(half)
    assert "study.db lacked 5 trials; they were made anew from their folders" in capsys.readouterr().err
    play(study)
    study.close()
    (tmp_path / "whole").mkdir()
    assert outcome(study) == uninterrupted(tmp_path / "whole", epochs=3)
    assert [numbers(study.folder.trial(n)) == list(range(1, one.epochs + 1)) for n, one in enumerate(study.results())]


def test_a_rebuilt_database_says_what_the_lost_one_said(half):
    database = folder(half).database
    told = {}
    for name in ("before", "after"):
        trials = optuna.load_study(study_name="question", storage=f"sqlite:///{database}").trials[:4]
        told[name] = [(t.number, t.state, t.value, t.params, t.intermediate_values) for t in trials]
        remove(database)
        opened(half).close()
    assert told["before"] == told["after"]


def test_an_old_copy_of_the_database_is_brought_up_to_date(half):
    database = folder(half).database
    with closing(sqlite3.connect(database)) as link:
        for table in ("trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes"):
            link.execute(f"DELETE FROM {table} WHERE trial_id > 2")  # noqa: S608
        link.execute("DELETE FROM trial_system_attributes WHERE trial_id > 2")
        link.execute("DELETE FROM trials WHERE number > 1")
        link.commit()
    study = opened(half)
    play(study)
    assert [one.number for one in study.results()] == list(range(8))


def test_a_number_without_a_folder_is_trained_and_not_given_out_again(half):
    import shutil

    remove(folder(half).database)
    shutil.rmtree(folder(half).trial(1).root)
    study = opened(half)
    play(study)
    assert [one.number for one in study.results()] == list(range(8))
    assert {one.state for one in study.results()} <= {"COMPLETE", "PRUNED"}


# --------------------------------------------------------------------------------------- what is said
def spoil(database: Path) -> None:
    database.write_bytes(b"this is no database" * 500)


def cut(database: Path) -> None:
    with closing(sqlite3.connect(database)) as link:
        link.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 3])


def newer(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as link:
        link.execute("UPDATE version_info SET library_version = '9.0.0'")
        link.execute(statement)
        link.commit()


@pytest.mark.parametrize(
    ("damage", "what", "remedy"),
    [
        (spoil, "file is not a database", "move it away"),
        (cut, "database disk image is malformed", "move it away"),
        (lambda d: newer(d, "UPDATE version_info SET schema_version = 99"), "is of Optuna 9.0.0", "pip install"),
        (lambda d: newer(d, "UPDATE alembic_version SET version_num = 'v9.0.0.a'"), "is of Optuna 9.0.0", "pip inst"),
    ],
)
def test_a_database_that_cannot_be_used_is_said_in_words_and_left_as_it_is(half, damage, what, remedy):
    database = folder(half).database
    damage(database)
    before = database.read_bytes()
    with pytest.raises(EnvironmentFault, match=what) as caught:
        opened(half)
    assert remedy in caught.value.help
    assert caught.value.where == str(database)
    assert database.read_bytes() == before


@pytest.mark.parametrize("damage", [spoil, cut])
def test_a_damaged_database_that_was_moved_away_is_made_anew(half, damage):
    damage(folder(half).database)
    remove(folder(half).database)
    study = opened(half)
    play(study)
    assert [one.number for one in study.results()] == list(range(8))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"study": "x"}', '{"identity": {"goal": "macro_f1"}}', "null"])
def test_a_damaged_study_file_is_said_in_words(half, text):
    folder(half).spec.write_text(text)
    with pytest.raises(EnvironmentFault, match="this file is damaged") as caught:
        opened(half)
    assert caught.value.where == str(folder(half).spec)


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
    assert mounts.network(Path(place), MOUNTS) == kind


@pytest.mark.parametrize(
    ("place", "way"),
    [("/home/me/mlruns", "DELETE"), ("/home/local/mlruns", "WAL"), ("/mnt/copies/mlruns", "DELETE"), ("/", "WAL")],
)
def test_no_index_is_mapped_where_that_does_harm(place, way):
    assert mounts.journal(Path(place), MOUNTS + "/dev/sdb1 /mnt/copies btrfs rw 0 0\n") == way


def test_a_system_that_names_no_mounts_has_no_network(tmp_path):
    assert mounts.network(tmp_path, "") == ""


def test_on_a_network_file_system_a_study_does_without_the_log(half, tmp_path, monkeypatch, capsys):
    text = tmp_path / "mounts"
    text.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", text)
    study = opened(half)
    play(study)
    assert "lies on a network file system (nfs4)" in capsys.readouterr().err
    assert not list(folder(half).root.glob("study.db-wal"))
    assert len(study.results()) == 8


# -------------------------------------------------------------------------------------------- MLflow's
@pytest.mark.parametrize(("version", "known"), [(None, ""), ("feedfacecafe", "feedfacecafe")])
def test_tables_of_another_mlflow_are_known_by_their_version(tmp_path, version, known):
    database = tmp_path / "mlflow.db"
    assert store.unknown(database) == ""
    with closing(sqlite3.connect(database)) as link:
        link.execute("CREATE TABLE alembic_version (version_num TEXT)")
        link.execute("INSERT INTO alembic_version VALUES (?)", (version or _head(),))
        link.commit()
    assert store.unknown(database) == known


def _head() -> str:
    from importlib import util

    home = Path(next(iter(util.find_spec("mlflow").submodule_search_locations)))
    return next(home.glob("store/db_migrations/versions/*_*.py")).name.split("_")[0]


def test_what_a_study_asks_names_its_open_values_as_its_space_does(half):
    from sweeper import spec
    from sweeper.defaults import opened as names
    from sweeper.space import Space

    asked = json.loads(folder(half).spec.read_text())["identity"]["train"]
    assert sorted(names(asked)) == sorted(Space(spec.read(half), ("pattern",)).names)
