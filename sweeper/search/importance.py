"""The importance of each parameter: Optuna's PED-ANOVA, with its uncertainty by bootstrap over the trials."""

import math
import random
import warnings
from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any, NamedTuple

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper.trial import TrialResult

RESAMPLES = 50
TOP_SHARE, MIN_TOP = 0.25, 5
"""The trials that count as the best: this share of them, but at least five, as Optuna advises; no pruned ones."""


class Share(NamedTuple):
    """The share of a parameter in the difference between the best trials and all, and its standard error."""

    share: float
    error: float


def shares(results: Sequence[TrialResult], asked: Mapping[str, Mapping[str, Any]]) -> dict[str, Share]:
    """Return the share of each parameter, the largest first; together they are 1.

    `asked` has the parameters by dotted name, as in study.json. A pruned trial counts as tried and as worse than any
    that completed: how much worse does not matter to PED-ANOVA, which compares where the best trials lie with where
    all do. Failed and unfinished trials do not count. Empty if nothing can be distinguished: fewer than two
    parameters, or no trial that is better than another.
    """
    distributions = {name: _distribution(each) for name, each in asked.items()}
    trials = _trials(results, distributions)
    if len(distributions) < 2 or len({trial.value for trial in trials}) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # at its default it would log every resample
    found = _shares(trials)
    draw = random.Random(0)  # noqa: S311 - the same trials give the same errors
    drawn = [_shares(draw.choices(trials, k=len(trials))) for _ in range(RESAMPLES)]
    errors = {name: stdev(each.get(name, 0.0) for each in drawn) for name in found}
    return {name: Share(share, errors[name]) for name, share in found.items()}


def _distribution(asked: Mapping[str, Any]) -> BaseDistribution:
    """Return Optuna's distribution for a parameter of study.json."""
    if "choice" in asked:
        return CategoricalDistribution([label for label, _ in asked["choice"]])
    kind = next(kind for kind in ("uniform", "loguniform", "int", "logint") if kind in asked)
    (low, high), log = asked[kind], kind.startswith("log")
    if kind in ("int", "logint"):
        return IntDistribution(int(low), int(high), log=log, step=int(asked.get("step", 1)))
    return FloatDistribution(low, high, log=log, step=asked.get("step"))


def _trials(results: Sequence[TrialResult], distributions: Mapping[str, BaseDistribution]) -> list[FrozenTrial]:
    """Return the trials that count, with values oriented so that larger is better."""
    completed = [one for one in results if one.state == "COMPLETE" and math.isfinite(one.oriented)]
    worse = min((one.oriented for one in completed), default=0.0) - 1
    pruned = [one for one in results if one.state == "PRUNED"]
    values = [(one, one.oriented) for one in completed] + [(one, worse) for one in pruned]
    return [_trial(one, distributions, value) for one, value in values]


def _trial(result: TrialResult, distributions: Mapping[str, BaseDistribution], value: float) -> FrozenTrial:
    params = {name: each for name, each in result.params.items() if name in distributions}
    return FrozenTrial(
        number=result.number,
        trial_id=result.number,
        state=TrialState.COMPLETE,
        value=value,
        params=params,
        distributions={name: distributions[name] for name in params},
        datetime_start=None,
        datetime_complete=None,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


class _Trials(InMemoryStorage):
    """A storage with these trials, without copies: Optuna would copy each trial for every resample."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._all = list(trials)

    def get_all_trials(self, *_: Any, **__: Any) -> list[FrozenTrial]:
        """Return all trials; they are complete, and nobody changes them."""
        return self._all


def _shares(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    study = optuna.create_study(direction="maximize", storage=_Trials(trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a resample without differences all shares are equal
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_top(trials)))


def _top(trials: Sequence[FrozenTrial]) -> float:
    """Return the share of trials that count as the best, small enough to exclude the worst, which are all equal."""
    values = [trial.value or 0.0 for trial in trials]
    better = len(values) - values.count(min(values))
    return min(max(TOP_SHARE, min(MIN_TOP / len(trials), 0.5)), max(1, better) / len(trials))
