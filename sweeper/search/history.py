"""Past trials as Optuna trials: those in a study's run folders, and those transferred from another study."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import isnan
from typing import Any, Protocol

from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from sweeper.store import records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.trial_index import Entry

GONE = "removed"  # an attribute of stand-ins
TOLD = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAILED": TrialState.FAIL}
Suggest = Callable[[Any], object]
"""Draws the parameters of an Optuna trial, in the order of the search space."""


def past_trial(
    suggest: Suggest, params: Mapping[str, Any], state: TrialState, value: float | None, values: Sequence[float]
) -> FrozenTrial:
    """Return a trial with its parameters, its value if COMPLETE, and its `values` after each epoch, from epoch 1."""
    fixed = FixedTrial(dict(params))
    suggest(fixed)
    last = values[-1] if values and not isnan(values[-1]) else None
    return create_trial(
        state=state,
        value={TrialState.COMPLETE: value, TrialState.PRUNED: last}.get(state),  # as in `Study.tell`
        params=fixed.params,
        distributions=fixed.distributions,
        intermediate_values=dict(enumerate(values, 1)),
    )


def past_trials(study: StudyFolder, ended: Mapping[int, Entry], suggest: Suggest) -> list[FrozenTrial]:
    """Return the trials of a study by number, from 0 without a gap; `ended` has the finished ones.

    A trial exists once its config.json is written. If somebody removes its folder, its number stays taken, by a
    failed trial that `is_gone`.
    """
    found = {number: of_folder(folder, ended.get(number), suggest) for number, folder in records.folders(study)}
    last = max((number for number, trial in found.items() if trial), default=-1)
    return [found.get(number) or gone() for number in range(last + 1)]


def of_folder(folder: RunFolder, entry: Entry | None, suggest: Suggest) -> FrozenTrial | None:
    """Return the trial in a folder, RUNNING if unfinished; None if it has not started.

    Raises EnvironmentFault if its config.json is gone: a trial started from scratch must not continue that history.
    """
    if entry:
        result = entry.result
        trial = past_trial(suggest, result.params, TOLD[result.state], result.value, entry.values)
        if entry.spans:
            trial.datetime_start = datetime.fromtimestamp(entry.spans[0][0])
            trial.datetime_complete = datetime.fromtimestamp(entry.ended)
        return trial
    if not folder.config.exists() and not folder.history.exists():
        return None
    job = records.started_job(folder)
    values = [epoch.value(job.recipe.metric) for epoch in records.history(folder)]
    return past_trial(suggest, job.params, TrialState.RUNNING, None, values)


def direction(*, minimize: bool) -> StudyDirection:
    """Return the direction of the metric, for Optuna."""
    return StudyDirection.MINIMIZE if minimize else StudyDirection.MAXIMIZE


def gone() -> FrozenTrial:
    """Return a stand-in for a trial whose folder was removed."""
    return create_trial(state=TrialState.FAIL, user_attrs={GONE: True})


def is_gone(trial: FrozenTrial) -> bool:
    """True if the folder of this trial was removed."""
    return GONE in trial.user_attrs


class Transferable(Protocol):
    """A trial of another study, with the parameters of this one."""

    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def state(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def values(self) -> Sequence[float]: ...


def transferred(trials: Sequence[Transferable], suggest: Suggest) -> list[FrozenTrial]:
    """Return the trials of another study, numbered up to -1, so that no sampler takes them for the study's own."""
    made = [past_trial(suggest, one.params, TrialState[one.state], one.value, one.values) for one in trials]
    for number, trial in enumerate(made, -len(made)):
        trial.number = trial._trial_id = number
    return made
