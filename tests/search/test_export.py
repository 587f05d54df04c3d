"""study.db: an ordinary Optuna database that follows the run folders, and is made anew where it cannot."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from sweeper.search import history
from sweeper.search.export import OptunaExport
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.store import records
from sweeper.store.paths import StudyFolder
from sweeper.study.study import Study
from sweeper.trial import Closing, Done, Job, TrialResult
from tests.support.studies import curve, opened, play, played, write

CLIMB = "{sampler: {name: tpe, startup_trials: 3}, pruner: {name: asha, min_epochs: 1, reduction_factor: 2}}"

pytestmark = pytest.mark.usefixtures("faked")


class Exported:
    """An export of the study of the file at `path`, and what it noted."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, StudyFolder(path.parent / "question")
        self.notes: list[str] = []
        self.suggest = Space(yaml_io.read(path), ("pattern",)).suggest
        self.export = OptunaExport(self.folder, self.suggest, self.notes.append)
        self.export.opened()

    def close(self) -> None:
        self.export.closed(Closing("COMPLETE", timeout=60))

    def agree(self) -> int:
        """Compare the file with the folders; returns how many trials there are."""
        theirs = optuna.load_study(study_name="question", storage=f"sqlite:///{self.folder.database}").trials
        ours = history.past_trials(self.folder, records.ended(self.folder), self.suggest)
        fields = ("state", "params", "values", "intermediate_values")
        assert [[getattr(one, name) for name in fields] for one in theirs] == [
            [getattr(one, name) for name in fields] for one in ours
        ]
        assert [one.number for one in theirs] == list(range(len(ours)))
        return len(ours)


def interleaved(study: Study, slots: int) -> Iterator[tuple[str, Job, TrialResult | None]]:
    """Train with several slots in turn, so that trials end out of order; yields what an observer is told."""
    running = {}
    while True:
        while len(running) < slots and (job := study.next_job()):
            running[job.trial] = job, iter(curve(job))
            yield "started", job, None
        if not running:
            return
        for job, epochs in list(running.values()):
            epoch = next(epochs, None)
            if epoch and study.report(job.key, epoch):
                yield "epoch", job, None
                continue
            del running[job.trial]
            yield "ended", job, study.finish(Done(key=job.key, stopped=epoch is not None))


def follow(export: OptunaExport, study: Study, slots: int) -> None:
    for kind, job, result in interleaved(study, slots):
        if kind == "started":
            export.started(job, "")
        elif result:
            export.ended(job, result)
        else:
            export.epoch(job, curve(job)[0], None)


@pytest.mark.parametrize("search", ["{sampler: tpe}", CLIMB])
@pytest.mark.parametrize("slots", [1, 3])
def test_births_reports_and_ends_follow_in_the_order_of_our_numbers(tmp_path, search, slots):
    path = write(tmp_path, search=search, epochs=4)
    study, seen = opened(path), Exported(path)
    follow(seen.export, study, slots)
    seen.close()
    assert seen.agree() == 12
    assert seen.notes == []


def test_what_was_trained_without_it_is_caught_up_with_and_then_nothing_is_written(tmp_path):
    path = write(tmp_path, epochs=3)
    study = opened(path)
    play(study, 5)
    job = study.next_job()
    assert job
    study.report(job.key, curve(job)[0])
    seen = Exported(path)
    seen.close()
    assert seen.agree() == 6
    played(study, job)
    play(study)
    written = []
    for _ in range(2):
        seen = Exported(path)
        seen.close()
        assert seen.agree() == 12
        written.append(seen.folder.database.stat().st_mtime_ns)
    assert written[0] == written[1]


def spoil(database: Path) -> None:
    database.write_bytes(b"this is no database" * 500)


def cut(database: Path) -> None:
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 3])


def newer(database: Path) -> None:
    with closing(sqlite3.connect(database)) as link, link:
        link.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")


def contradict(database: Path) -> None:
    with closing(sqlite3.connect(database)) as link, link:
        link.execute("UPDATE trial_values SET value = value + 1 WHERE trial_id = 2")


def forget(database: Path) -> None:
    shutil.rmtree(database.parent / "trials" / "0001")


def empty(database: Path) -> None:
    database.write_bytes(b"")


@pytest.mark.parametrize("damage", [spoil, cut, newer, contradict, forget, empty, Path.unlink])
def test_a_file_that_is_missing_damaged_or_at_odds_with_the_folders_is_made_anew(tmp_path, damage):
    path = write(tmp_path, epochs=2)
    play(opened(path), 6)
    seen = Exported(path)
    seen.close()
    damage(seen.folder.database)
    again = Exported(path)
    again.close()
    assert again.agree() == 6
    assert again.notes == []


def test_what_somebody_keeps_beside_the_file_stays_when_it_is_made_anew(tmp_path):
    path = write(tmp_path, epochs=2)
    play(opened(path), 2)
    kept = tmp_path / "question" / "study.db.before"
    kept.write_bytes(b"mine")
    (tmp_path / "question" / "study.db").write_bytes(b"no database" * 500)
    seen = Exported(path)
    seen.close()
    assert seen.agree() == 2
    assert kept.read_bytes() == b"mine"


@pytest.mark.slow
def test_a_file_that_is_locked_costs_a_note_and_is_brought_up_to_date_when_it_is_free(tmp_path):
    path = write(tmp_path, epochs=2)
    study = opened(path)
    play(study, 3)
    seen = Exported(path)
    seen.close()
    with closing(sqlite3.connect(seen.folder.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        job = study.next_job()
        assert job
        played(study, job)
        late = Exported(path)
        late.close()
        assert late.notes == ["study.db is behind, which affects only optuna-dashboard: database is locked"]
        other.execute("COMMIT")
    again = Exported(path)
    again.close()
    assert again.agree() == 4
