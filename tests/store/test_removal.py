"""`sweep rm`."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from sweeper.errors import StudyHeld, UserError
from sweeper.store import lock, paths, removal, studies
from sweeper.store.paths import StudyFolder
from tests.results.test_comparison import study
from tests.support.cli import sweep


def test_the_folder_goes_and_other_studies_stay():
    a, b = study("a", (0.5,)), study("b", (0.5,))
    assert removal.question(removal.find("a")).startswith("a: 1 trained models in ")
    assert removal.remove(removal.find("a")) == ["a was removed"]
    assert [one.name for one in studies.studies()] == ["b"]
    assert b.study_file.exists()
    assert not a.root.exists()
    assert not list(paths.home().glob(f"{removal.LEFTOVER}*"))


def test_what_mlflow_keeps_is_said():
    a = study("a", ())
    a.sync_state.write_text("{}")
    assert removal.remove(a) == ["a was removed", removal.KEPT]


def test_a_study_that_is_held_stays():
    a = study("a", (0.5,))
    held = lock.acquire(a.lock)
    try:
        with pytest.raises(StudyHeld):
            removal.find("a")
        with pytest.raises(StudyHeld):
            removal.remove(a)
    finally:
        held.release()
    assert a.study_file.exists()


def test_what_a_kill_has_left_goes_with_the_next_and_is_no_study():
    study("a", (0.5,)).root.rename(paths.home() / f"{removal.LEFTOVER}a")
    assert studies.studies() == []
    removal.remove(study("b", ()))
    assert not list(paths.home().glob(f"{removal.LEFTOVER}*"))


def test_a_link_is_left_to_the_person(tmp_path):
    a = study("a", ())
    a.root.rename(tmp_path / "elsewhere")
    a.root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="this is a link to a folder elsewhere"):
        removal.find("a")


def test_of_two_removals_one_wins_and_the_other_says_so():
    first, second = study("a", (0.5,)), StudyFolder.named("a")
    at_work = removal.alone()
    try:
        with pytest.raises(StudyHeld, match="another `sweep rm` is running"):
            removal.remove(second)
    finally:
        at_work.release()
    assert removal.remove(first) == ["a was removed"]
    with pytest.raises(UserError, match="a is already gone"):
        removal.remove(second)
    assert not second.root.exists()


@pytest.mark.process
def test_two_commands_at_once_end_with_one_removal_and_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path / "mlruns"))
    study("a", (0.5, 0.6, 0.7))
    with ThreadPoolExecutor(2) as both:
        ended = [one.result() for one in [both.submit(sweep, tmp_path, "rm", "a", "--yes") for _ in range(2)]]
    assert sorted(bool(one.returncode) for one in ended) == [False, True]
    assert not [one for one in ended if "Traceback" in one.stderr]
    assert not StudyFolder.named("a").root.exists()


@pytest.mark.process
def test_without_a_terminal_it_takes_yes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path / "mlruns"))
    study("a", ())
    asked = sweep(tmp_path, "rm", "a")
    assert (asked.returncode, "--yes removes it" in asked.stderr) == (2, True)
    assert sweep(tmp_path, "rm", "a", "--yes").returncode == 0
    assert not StudyFolder.named("a").root.exists()
