"""Optuna's database, written and read without its models: as Optuna itself would."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from sweeper.storage import Mirrored

ENDS = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A study with a trial in every state, with and without values that are no numbers."""
    storage = Mirrored(tmp_path / "study.db", "s")
    study = optuna.load_study(storage=storage, study_name="s")
    for number, end in enumerate(ENDS):
        trial = study.ask()
        trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        trial.suggest_int("every", 1, 9, step=2)
        trial.suggest_categorical("backbone", ["a", "b", 3, None])
        trial.set_user_attr("why", {"number": number})
        for step, value in enumerate([0.1, math.inf, -math.inf, math.nan, 1 / 3], 1):
            trial.report(value, step)
        study.tell(trial, 0.5 if end == TrialState.COMPLETE else None, state=end)
    study.ask().suggest_float("lr", 1e-5, 1e-1, log=True)
    study.enqueue_trial({"lr": 1e-3})
    storage.close()
    return tmp_path / "study.db"


def facts(trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    """All that there is to know of trials; as text, since nan equals nothing."""
    fields = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")
    fields += ("intermediate_values", "datetime_start", "datetime_complete")
    return [repr([getattr(trial, name) for name in fields]) for trial in trials]


def test_trials_are_loaded_as_optuna_itself_reads_them(path):
    storage = Mirrored(path, "s")
    seen = storage.get_all_trials(0)
    storage.close()
    theirs = optuna.load_study(storage=f"sqlite:///{path}", study_name="s").trials
    assert {trial.state for trial in theirs} == set(TrialState)
    assert facts(seen) == facts(theirs)


def test_the_best_trial_of_a_loaded_study_is_known(path):
    storage = Mirrored(path, "s")
    assert storage.get_best_trial(0).number == 0
    storage.close()


def test_an_epoch_reported_again_replaces_what_was_reported(path):
    storage = Mirrored(path, "s")
    storage.set_trial_intermediate_value(3, 1, 0.25)
    storage.set_trial_intermediate_value(3, 1, 0.75)
    storage.catch_up(3, {1: 0.5, 2: 0.875})
    storage.close()
    assert optuna.load_study(storage=f"sqlite:///{path}", study_name="s").trials[3].intermediate_values == {
        1: 0.75,
        2: 0.875,
    }


def test_an_ended_trial_takes_no_more_reports(path):
    storage = Mirrored(path, "s")
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_intermediate_value(0, 9, 0.5)
    storage.close()
    with closing(sqlite3.connect(path)) as database:
        (count,) = database.execute("SELECT count(*) FROM trial_intermediate_values WHERE step = 9").fetchone()
    assert count == 0
