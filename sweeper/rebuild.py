"""Trials that the run folders hold and Optuna's database lacks: it was lost, or is an old copy."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sweeper import record
from sweeper.paths import RunFolder, StudyFolder
from sweeper.storage import remembered

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TOLD = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAILED": "FAIL"}


def missing(study: StudyFolder, known: int, suggest: Callable[[Any], object]) -> "Iterator[FrozenTrial]":
    """The trials from number `known` on, as Optuna would have them.

    One without an end is running, and so is a number without a folder: it is taken up, and never given out again.
    """
    there = dict(record.folders(study))
    for number in range(known, max(there, default=-1) + 1):
        yield _trial(study.trial(number), suggest)


def _trial(folder: RunFolder, suggest: Callable[[Any], object]) -> "FrozenTrial":
    job, result = record.read_config(folder), record.read_result(folder)
    if job is None:
        return remembered(lambda _: None, {}, "RUNNING", None, ())
    values = [epoch.value(job.recipe.goal) for epoch in record.history(folder)]
    state, value = (TOLD[result.state], result.value) if result else ("RUNNING", None)
    return remembered(suggest, job.params, state, value, values)
