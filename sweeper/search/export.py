"""The export to study.db, an ordinary Optuna database for optuna-dashboard; nothing is ever read back from it."""

import sqlite3
import threading
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from queue import SimpleQueue

import sqlalchemy
from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper.errors import UserError
from sweeper.search import history
from sweeper.search.history import Suggest
from sweeper.store import records, trial_index
from sweeper.store.paths import StudyFolder
from sweeper.trial import Closing, Job, Observer, TrialResult
from trainers.epoch import Epoch

LOCK_TIMEOUT_S = 5.0
TROUBLES = (OptunaError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError, UserError)


class OptunaExport(Observer):
    """The observer that writes a study's trials to study.db, from a thread of its own.

    An event only names a trial: the thread brings that trial's row up to date from its run folder. Optuna numbers
    trials by count, so rows are created in the order of our numbers. A file that is missing, damaged, written by
    another Optuna or at odds with the folders is created again. A locked file is tried again at the next event.
    """

    def __init__(
        self, study: StudyFolder, suggest: Suggest, note: Callable[[str], None], *, minimize: bool = False
    ) -> None:
        """Start with all trials of `study`; `suggest` comes from its space, `note` receives problems.

        `minimize`: lower values of the metric are better.
        """
        self._study, self._suggest, self._note = study, suggest, note
        self._direction = history.direction(minimize=minimize)
        self._events: SimpleQueue[int | None] = SimpleQueue()  # trial numbers; None stops the thread
        self._trouble = self._reported = ""
        self._file: _File | None = None
        self._thread = threading.Thread(target=self._work, name="study.db", daemon=True)

    def opened(self) -> None:
        """Bring the file up to date with earlier sessions."""
        self._thread.start()

    def started(self, job: Job, _slot: str) -> None:
        self._changed(job)

    def epoch(self, job: Job, _epoch: Epoch, _best: TrialResult | None) -> None:
        self._changed(job)

    def ended(self, job: Job, _result: TrialResult) -> None:
        self._changed(job)

    def note(self, text: str) -> None:
        """Do nothing: the file has no place for notes."""

    def closed(self, closing: Closing) -> None:
        """Wait until everything is written, at most `closing.timeout` seconds."""
        self._events.put(None)
        self._thread.join(closing.timeout)
        if self._thread.is_alive() and not closing.followed:
            self._trouble = "it was not written in time"
        self._report()

    def _changed(self, job: Job) -> None:
        if job.kind == "trial":
            self._events.put(job.trial)
        self._report()

    def _report(self) -> None:
        """Report a new problem, in the caller's thread."""
        if self._trouble != self._reported:
            self._reported = self._trouble
            self._note(f"{self._study.database.name} is behind, which affects only optuna-dashboard: {self._trouble}")

    # --------------------------------------------------------------------------------- in the thread
    def _work(self) -> None:
        changed: set[int | None] = set()
        while True:
            try:
                self._write(sorted(number for number in changed if number is not None))
            except TROUBLES as error:
                self._trouble = str(getattr(error, "orig", None) or error.__cause__ or error).splitlines()[0]
                self._leave()
            if None in changed:
                return self._leave()
            changed = {self._events.get()}
            while not self._events.empty():
                changed.add(self._events.get())

    def _write(self, changed: Sequence[int]) -> None:
        """Bring the rows of `changed` trials up to date, or all rows if the file has to be opened first."""
        if self._file:
            for number in changed:
                self._file.update(number)
        else:
            trials = history.past_trials(self._study, trial_index.read(self._study), self._suggest)
            self._file = _opened(self._study, self._suggest, trials, self._direction)
            self._file.catch_up(trials)
        self._trouble = ""

    def _leave(self) -> None:
        if self._file:
            self._file.close()
        self._file = None


def _opened(
    study: StudyFolder, suggest: Suggest, trials: Sequence[FrozenTrial], direction: StudyDirection
) -> "_File":
    """Open the file; create it again if it cannot be read or contradicts `trials`."""
    try:
        file = _File(study, suggest, direction)
        if file.agrees(trials):
            return file
        file.close()
    except (sqlite3.DatabaseError, sqlalchemy.exc.DatabaseError, RuntimeError) as error:
        if _is_locked(error):
            raise
    for end in ("", "-wal", "-shm", "-journal"):
        study.database.with_name(study.database.name + end).unlink(missing_ok=True)
    return _File(study, suggest, direction)


def _is_locked(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__
    return error is not None and getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")


class _File:
    """The open file: its trials by number, unfinished ones with the steps reported so far."""

    def __init__(self, study: StudyFolder, suggest: Suggest, direction: StudyDirection) -> None:
        self._study, self._suggest, self._direction = study, suggest, direction
        settings = {"creator": lambda: _connected(study.database)}  # a URL would misread a path with ?, # or %
        self._storage = RDBStorage("sqlite:///study.db", engine_kwargs=settings)
        try:
            self._id = self._storage.get_study_id_from_name(study.name)
        except KeyError:
            self._id = self._storage.create_new_study([direction], study.name)
        self._trials = self._storage.get_all_trials(self._id, deepcopy=False)

    def close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def agrees(self, trials: Sequence[FrozenTrial]) -> bool:
        """True if the file's direction is right and each of its trials matches, perhaps at an earlier time."""
        if self._storage.get_study_directions(self._id) != [self._direction]:
            return False
        pairs = zip(self._trials, trials, strict=False)
        return len(self._trials) <= len(trials) and all(_is_earlier(there, now) for there, now in pairs)

    def catch_up(self, trials: Sequence[FrozenTrial]) -> None:
        """Bring every row up to date."""
        for number, trial in enumerate(trials):
            self._write(number, trial)

    def update(self, number: int) -> None:
        """Bring the row of a trial up to date, and create the missing ones before it."""
        for each in range(min(number, len(self._trials)), number + 1):
            folder = self._study.trial(each)
            trial = history.of_folder(folder, records.entry(folder), self._suggest) or history.gone()
            self._write(each, trial)

    def _write(self, number: int, trial: FrozenTrial) -> None:
        if number == len(self._trials):
            self._storage.create_new_trial(self._id, template_trial=trial)
            self._trials.append(trial)
        elif (before := self._trials[number]).state == TrialState.RUNNING:
            self._go_on(number, trial, before.intermediate_values)
            self._trials[number] = trial

    def _go_on(self, number: int, trial: FrozenTrial, reported: Container[int]) -> None:
        row = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        for step, value in trial.intermediate_values.items():
            if step not in reported:
                self._storage.set_trial_intermediate_value(row, step, value)
        if trial.state != TrialState.RUNNING:
            self._storage.set_trial_state_values(row, trial.state, trial.values)


def _is_earlier(there: FrozenTrial, now: FrozenTrial) -> bool:
    """True if `there` is the same trial as `now`, perhaps at an earlier time."""
    if there.state == TrialState.RUNNING:
        return there.params == now.params and there.intermediate_values.items() <= now.intermediate_values.items()
    fields = ("state", "values", "params", "intermediate_values")
    return all(getattr(there, field) == getattr(now, field) for field in fields)


def _connected(path: Path) -> sqlite3.Connection:
    """Return a connection that never waits for the disk: a file damaged by a power cut is created again."""
    made = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, check_same_thread=False)
    made.execute("PRAGMA synchronous=OFF")
    return made
