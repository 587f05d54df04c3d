"""Optuna's SQLite database behind a memory: written at once, read once."""

import sqlite3
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper.errors import EnvironmentFault

BUSY = 60  # seconds to wait for a database that somebody else has locked


class Mirrored(InMemoryStorage):
    """One study, whole in memory; every write goes to the database at `path` first.

    Right because one process at a time writes to a study. Optuna reads all running trials back after every epoch,
    and more of a study the longer it is: this is what makes a report cost one write.
    """

    def __init__(self, path: Path, study: str) -> None:
        """Begin the study in the database, or load it."""
        super().__init__()
        self._disk = _database(path)
        optuna.create_study(storage=self._disk, study_name=study, direction="maximize", load_if_exists=True)
        self._there = self._disk.get_study_id_from_name(study)
        here = super().create_new_study([StudyDirection.MAXIMIZE], study)
        for key, value in self._disk.get_study_user_attrs(self._there).items():
            super().set_study_user_attr(here, key, value)
        for key, value in self._disk.get_study_system_attrs(self._there).items():
            super().set_study_system_attr(here, key, value)
        trials = self._disk.get_all_trials(self._there)
        self.paused: set[int] = set()  # ids here of trials that a reader sees as pruned
        self._ids = {super(Mirrored, self).create_new_trial(here, trial): trial._trial_id for trial in trials}

    def close(self) -> None:
        """Let go of the database."""
        self._disk.remove_session()
        self._disk.engine.dispose()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Those in `paused` as pruned ones: a sampler learns from what they have shown. On disk they run."""
        if not self.paused or states == (TrialState.WAITING,):
            return super().get_all_trials(study_id, deepcopy, states)
        trials = [self._seen(trial) for trial in super().get_all_trials(study_id, deepcopy)]
        return trials if states is None else [trial for trial in trials if trial.state in states]

    def _seen(self, trial: FrozenTrial) -> FrozenTrial:
        if trial._trial_id in self.paused:
            trial = copy(trial)
            trial.state, trial.datetime_complete = TrialState.PRUNED, trial.datetime_start
        return trial

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._disk.set_study_user_attr(self._there, key, value)
        super().set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._disk.set_study_system_attr(self._there, key, value)
        super().set_study_system_attr(study_id, key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        there = self._disk.create_new_trial(self._there, template_trial)
        here = super().create_new_trial(study_id, template_trial)
        self._ids[here] = there
        return here

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._disk.set_trial_param(self._ids[trial_id], param_name, param_value_internal, distribution)
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        changed = self._disk.set_trial_state_values(self._ids[trial_id], state, values)
        return super().set_trial_state_values(trial_id, state, values) and changed

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._disk.set_trial_intermediate_value(self._ids[trial_id], step, intermediate_value)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._disk.set_trial_user_attr(self._ids[trial_id], key, value)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._disk.set_trial_system_attr(self._ids[trial_id], key, value)
        super().set_trial_system_attr(trial_id, key, value)


def _database(path: Path) -> RDBStorage:
    """The database at `path`, in a mode in which readers (`sweep status`, a dashboard) do not block the writer."""
    connection = sqlite3.connect(path, timeout=BUSY)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    return RDBStorage(f"sqlite:///{path.absolute()}", engine_kwargs={"connect_args": {"timeout": BUSY}})


@contextmanager
def trouble_with(database: Path) -> Iterator[None]:
    """What the file system or a lock does to the database is told as such."""
    try:
        yield
    except (StorageInternalError, sqlite3.Error) as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise EnvironmentFault(
            f"the study's database cannot be used: {cause}",
            where=str(database),
            help="free the disk, or end the program that has it locked, and run the same command again",
        ) from error
