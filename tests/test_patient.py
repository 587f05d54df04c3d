"""A database that another program has locked: waited for, told, and left when a person wants to stop."""

import sqlite3
import threading
import time
from contextlib import closing

import optuna
import pytest

from sweeper import patient
from sweeper.patient import Patience, connect
from sweeper.storage import Mirrored


@pytest.fixture
def path(tmp_path):
    with closing(sqlite3.connect(tmp_path / "some.db")) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("CREATE TABLE numbers (n INTEGER)")
    return tmp_path / "some.db"


def hold(path, seconds: float, *, write: bool = False) -> threading.Thread:
    """Lock the database in another connection for so long; returns when it is locked."""
    locked = threading.Event()

    def work() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            if write:
                other.execute("INSERT INTO numbers VALUES (0)")
            locked.set()
            time.sleep(seconds)
            other.execute("COMMIT")

    thread = threading.Thread(target=work)
    thread.start()
    locked.wait()
    return thread


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(patient, "SLOW", 0.3)
    return []


def patience(told, **settings) -> Patience:
    made = Patience("some.db", **settings)
    made.say = told.append
    return made


@pytest.mark.parametrize("write", [False, True])
def test_a_write_waits_for_a_lock_and_says_so(path, told, write):
    with closing(connect(path, patience(told))) as ours:
        thread = hold(path, 1.0, write=write)
        ours.execute("INSERT INTO numbers VALUES (1)")
        ours.execute("INSERT INTO numbers VALUES (2)")
        ours.commit()
        thread.join()
        numbers = [n for (n,) in ours.execute("SELECT n FROM numbers ORDER BY n")]
    assert numbers == [0, 1, 2][not write :]
    assert told == [
        "some.db has been locked by another program for 0 s; waiting",
        "some.db is free again after 1 s; going on",
    ]


def test_a_short_lock_is_not_told(path, told, monkeypatch):
    monkeypatch.setattr(patient, "SLOW", 30.0)
    with closing(connect(path, patience(told), isolation_level=None)) as ours:
        thread = hold(path, 0.5)
        ours.execute("INSERT INTO numbers VALUES (1)")
        thread.join()
    assert told == []


def test_whoever_stops_the_sweep_does_not_wait_for_a_lock(path, told):
    with closing(connect(path, patience(told, stopped=lambda: True))) as ours:
        thread = hold(path, 1.0)
        with pytest.raises(KeyboardInterrupt):
            ours.execute("INSERT INTO numbers VALUES (1)")
        thread.join()
    assert told == ["some.db is still locked by another program; stopped without it"]


def test_a_fault_that_is_no_lock_is_raised_at_once(path, told):
    with (
        closing(connect(path, patience(told))) as ours,
        pytest.raises(sqlite3.OperationalError, match="no such table"),
    ):
        ours.execute("SELECT * FROM absent")


def test_optuna_waits_for_a_lock_too(tmp_path, told):
    path = tmp_path / "study.db"
    storage = Mirrored(path, "s", patience(told))
    study = optuna.load_study(storage=storage, study_name="s")
    trial = study.ask()
    for act in (lambda: study.tell(trial, 0.5), lambda: study.set_user_attr("a", 1), study.ask):
        thread = hold(path, 0.7)
        act()
        thread.join()
    storage.close()
    assert [line.split(" by ")[0] for line in told[::2]] == ["some.db has been locked"] * 3
    states = [each.state.name for each in optuna.load_study(storage=f"sqlite:///{path}", study_name="s").trials]
    assert states == ["COMPLETE", "RUNNING"]


@pytest.mark.parametrize("odd", ["{x}", "a?b", "a#b", "50%", "a%20b", "a b", "a'b"])
def test_a_folder_may_have_any_name(tmp_path, odd):
    (tmp_path / odd).mkdir()
    for _ in range(2):
        Mirrored(tmp_path / odd / "study.db", "s").close()
    assert [path.name for path in (tmp_path / odd).iterdir()] == ["study.db"]
    assert [path.name for path in tmp_path.iterdir()] == [odd]
