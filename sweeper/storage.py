"""Optuna's SQLite database behind a memory: written at once, read once."""

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from copy import copy
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState, create_trial

from sweeper import database
from sweeper.patient import Patience, connect

if TYPE_CHECKING:
    from sweeper.warm import Lesson

REPORT = """\
INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
VALUES (?, ?, ?, ?)
ON CONFLICT (trial_id, step) DO UPDATE
SET intermediate_value = excluded.intermediate_value, intermediate_value_type = excluded.intermediate_value_type
"""
PARAM = """\
INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)
ON CONFLICT (trial_id, param_name) DO UPDATE
SET param_value = excluded.param_value, distribution_json = excluded.distribution_json
"""
TRIALS = """\
SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials WHERE study_id = ? ORDER BY number
"""
PARTS = {
    "params": "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params ORDER BY param_id",
    "values": "SELECT trial_id, objective, value, value_type FROM trial_values ORDER BY objective",
    "reports": "SELECT trial_id, step, intermediate_value, intermediate_value_type FROM trial_intermediate_values",
    "user_attrs": "SELECT trial_id, key, value_json FROM trial_user_attributes",
    "system_attrs": "SELECT trial_id, key, value_json FROM trial_system_attributes",
}
OURS = (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.NotSupportedError)  # our own mistakes
PAGE = 4096  # bytes of a page of SQLite's, as it is made
NO_NUMBERS = {"NAN": math.nan, "INF_POS": math.inf, "INF_NEG": -math.inf}


class Mirrored(InMemoryStorage):
    """One study, whole in memory; every write goes to the database at `path` first.

    Right because one process at a time writes to a study. Optuna reads all running trials back after every epoch,
    and more of a study the longer it is: this is what makes a report cost one write.

    A trial and its end are on the disk when their call returns. Its values, and what is reported of its epochs, are
    safe from a kill of the process, but a power cut may take those written since: the run folder has them, and
    `Study.open` writes them again.
    """

    def __init__(self, path: Path, study: str, patience: Patience | None = None) -> None:
        """Begin the study in the database, or load it; while it is locked, `patience` waits."""
        super().__init__()
        patience = patience or Patience(path.name)
        self._disk = database.opened(path, patience)
        self._reports = connect(path, patience, isolation_level=None)
        self._reports.execute("PRAGMA synchronous=NORMAL")
        optuna.create_study(storage=self._disk, study_name=study, direction="maximize", load_if_exists=True)
        self._there = self._disk.get_study_id_from_name(study)
        here = super().create_new_study([StudyDirection.MAXIMIZE], study)
        for key, value in self._disk.get_study_user_attrs(self._there).items():
            super().set_study_user_attr(here, key, value)
        for key, value in self._disk.get_study_system_attrs(self._there).items():
            super().set_study_system_attr(here, key, value)
        self.learnt: list[FrozenTrial] = []  # of an earlier study, numbered below 0; samplers and pruners see them
        self.paused: set[int] = set()  # ids here of trials that a reader sees as pruned
        trials = loaded(self._reports, self._there)
        self._ids = {self._remember(here, trial): trial._trial_id for trial in trials}
        self._kinds = {name: kind for trial in trials for name, kind in trial.distributions.items()}

    def _remember(self, study_id: int, trial: FrozenTrial) -> int:
        """Have memory hold `trial` itself; Optuna's own way copies each value of it, a third of a millisecond."""
        here = super().create_new_trial(study_id)
        self._set_trial(here, _numbered(trial, here))
        self._update_cache(here, study_id)
        return here

    def close(self) -> None:
        """Let go of the database."""
        self._reports.close()
        self._disk.remove_session()
        self._disk.engine.dispose()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Those in `paused` as pruned ones: a sampler learns from what they have shown. On disk they run.

        Before them those `learnt`, which are on no disk: their numbers, budget and results are another study's.
        """
        if states == (TrialState.WAITING,) or not (self.paused or self.learnt):
            return super().get_all_trials(study_id, deepcopy, states)
        own = (self._seen(trial) for trial in super().get_all_trials(study_id, deepcopy))
        trials = [*self.learnt, *own]
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
        """Written, as a report is, without Optuna's models, which take 1.5 ms, and without waiting for the disk."""
        check_distribution_compatibility(self._kinds.setdefault(param_name, distribution), distribution)
        self.check_trial_is_updatable(trial_id, self.get_trial(trial_id).state)
        row = self._ids[trial_id], param_name, param_value_internal, distribution_to_json(distribution)
        self._reports.execute(PARAM, row)
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        changed = self._disk.set_trial_state_values(self._ids[trial_id], state, values)
        return super().set_trial_state_values(trial_id, state, values) and changed

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self.check_trial_is_updatable(trial_id, self.get_trial(trial_id).state)
        self._reports.execute(REPORT, (self._ids[trial_id], step, *_stored(intermediate_value)))
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def catch_up(self, trial_id: int, values: Mapping[int, float]) -> None:
        """Report what a running trial lacks of `values`, by step."""
        known = self.get_trial(trial_id).intermediate_values
        for step in sorted(values.keys() - known.keys()):
            self.set_trial_intermediate_value(trial_id, step, values[step])

    def fixed(self, study: optuna.Study, trial: Trial, params: Mapping[str, Any]) -> Trial:
        """The same trial, of which any of `params` that is asked for comes out so."""
        self.set_trial_system_attr(trial._trial_id, "fixed_params", dict(params))
        return Trial(study, trial._trial_id)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._disk.set_trial_user_attr(self._ids[trial_id], key, value)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._disk.set_trial_system_attr(self._ids[trial_id], key, value)
        super().set_trial_system_attr(trial_id, key, value)


class Rehearsal(InMemoryStorage):
    """A copy of a study's trials in which to ask what would come next, those `learnt` among them."""

    def __init__(self, learnt: list[FrozenTrial]) -> None:
        super().__init__()
        self._learnt = learnt

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        learnt = [trial for trial in self._learnt if states is None or trial.state in states]
        return [*learnt, *super().get_all_trials(study_id, deepcopy, states)]


def remembered(
    suggest: Callable[[Any], object],
    params: Mapping[str, Any],
    state: str,
    value: float | None,
    values: Sequence[float],
) -> FrozenTrial:
    """A trial in a `state` of Optuna's; `suggest` asks for its parameters, `values` are those after each epoch."""
    asked = FixedTrial(dict(params))
    suggest(asked)
    return create_trial(
        state=TrialState[state],
        value={"COMPLETE": value, "PRUNED": values[-1] if values else None}.get(state),  # as Optuna's tell has it
        params=asked.params,
        distributions=asked.distributions,
        intermediate_values=dict(enumerate(values, 1)),
    )


def taught(lessons: Sequence["Lesson"], suggest: Callable[[Any], object]) -> list[FrozenTrial]:
    """The trials of another study, numbered from below 0 up to -1."""
    trials = [remembered(suggest, one.params, one.state, one.value, one.values) for one in lessons]
    for number, trial in enumerate(trials, -len(trials)):
        trial.number = trial._trial_id = number
    return trials


def _numbered(trial: FrozenTrial, ident: int) -> FrozenTrial:
    mine = copy(trial)
    mine._trial_id = ident
    return mine


def loaded(database: sqlite3.Connection, study: int) -> list[FrozenTrial]:
    """Every trial of a study as Optuna 5 lays it out, by number; its own models take 2 ms for each."""
    parts = {name: _parts(database, query) for name, query in PARTS.items()}
    return [
        _trial(row, {name: found[row[0]] for name, found in parts.items()})
        for row in database.execute(TRIALS, (study,))
    ]


def _parts(database: sqlite3.Connection, query: str) -> dict[int, list[tuple[Any, ...]]]:
    """The rows of a table without the trial's id, by that id."""
    found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for ident, *rest in database.execute(query):
        found[ident].append(tuple(rest))
    return found


def _trial(row: tuple[Any, ...], parts: dict[str, list[tuple[Any, ...]]]) -> FrozenTrial:
    ident, number, state, start, end = row
    kinds = {name: _distribution(text) for name, _, text in parts["params"]}
    return FrozenTrial(
        trial_id=ident,
        number=number,
        state=TrialState[state],
        value=None,
        values=[_number(*rest) for _, *rest in parts["values"]] or None,
        datetime_start=datetime.fromisoformat(start) if start else None,
        datetime_complete=datetime.fromisoformat(end) if end else None,
        params={name: kinds[name].to_external_repr(value) for name, value, _ in parts["params"]},
        distributions=kinds,
        user_attrs={key: json.loads(text) for key, text in parts["user_attrs"]},
        system_attrs={key: json.loads(text) for key, text in parts["system_attrs"]},
        intermediate_values={step: _number(*rest) for step, *rest in parts["reports"]},
    )


_distribution = cache(json_to_distribution)


def _number(value: float | None, kind: str) -> float:
    return NO_NUMBERS[kind] if value is None else value


def _stored(value: float) -> tuple[float | None, str]:
    """As Optuna 5 lays a reported value out: a column for numbers, and one that says what is none."""
    if math.isnan(value):
        return None, "NAN"
    return (None, "INF_POS" if value > 0 else "INF_NEG") if math.isinf(value) else (value, "FINITE")
