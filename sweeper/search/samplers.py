"""Optuna's samplers and pruners as a study file names them, every setting explicit."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from sweeper.search.history import direction
from sweeper.space.spec import (
    GP,
    TPE,
    Asha,
    CustomPruner,
    CustomSampler,
    EarlyStopping,
    Grid,
    Median,
    NoPruner,
    RandomSampler,
    Search,
)
from trainers import extensions
from trainers.config import OneCycle, TrainConfig
from trainers.extensions import Kind
from trainers.support.errors import UserError

if TYPE_CHECKING:
    from sweeper.space.space import Space

MIN_WARMUP_EPOCHS = 3  # epochs


def sampler(search: Search) -> "StatelessSampler":
    """The sampler of `search`; what it proposes depends on the seed, the trial's number and the record alone."""
    return StatelessSampler(lambda seed: _sampler(search, seed), search.seed)


def _sampler(search: Search, seed: int) -> BaseSampler:
    match search.sampler:
        case TPE() as chosen:
            return _tpe(seed, chosen.startup_trials)
        case GP() as chosen:
            return optuna.samplers.GPSampler(
                seed=seed,
                n_startup_trials=chosen.startup_trials,
                independent_sampler=_tpe(seed, chosen.startup_trials),
                warn_independent_sampling=False,
            )
        case RandomSampler() | Grid():  # a grid's values are queued, so nothing is left to sample
            return optuna.samplers.RandomSampler(seed=seed)
        case CustomSampler() as chosen:
            made: BaseSampler = _own("samplers", chosen, seed, BaseSampler)
            return made


def _tpe(seed: int, startup_trials: int) -> BaseSampler:
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=startup_trials, multivariate=False, constant_liar=True
    )


def first(search: Search, space: "Space", count: int, *, minimize: bool = False) -> Iterator[dict[str, Any]]:
    """The parameters of the first `count` trials as a study would ask for them while none has a result."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=direction(minimize=minimize), sampler=sampler(search))
    for params in islice(space.configurations(), count) if isinstance(search.sampler, Grid) else space.default():
        study.enqueue_trial(params)
    known = space.size if isinstance(search.sampler, Grid) else None
    for _ in range(count if known is None else min(count, known)):
        yield space.suggest(study.ask())


def pruner(search: Search, train: TrainConfig) -> BasePruner:
    """The pruner of `search` for a trial of `train`: its learning rate's warm-up and its epochs matter."""
    match search.pruner:
        case Median() as chosen:
            warmup = _warmup(train) if chosen.warmup_epochs is None else chosen.warmup_epochs
            return optuna.pruners.MedianPruner(
                n_startup_trials=chosen.startup_trials,
                n_warmup_steps=warmup + 1,  # steps count from 1
                n_min_trials=chosen.min_trials,
            )
        case EarlyStopping() as chosen:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return optuna.pruners.PatientPruner(None, patience=chosen.patience, min_delta=chosen.min_delta)
        case NoPruner() | Asha():  # the study's own rungs judge
            return optuna.pruners.NopPruner()
        case CustomPruner() as chosen:
            stops: BasePruner = _own("pruners", chosen, search.seed, BasePruner)
            return stops


def _own(kind: Kind, chosen: CustomSampler | CustomPruner, seed: int, wanted: type) -> Any:
    """What a function of an extension file makes for this seed; UserError for anything but a `wanted`."""
    definition = extensions.needed(kind, chosen.name)
    made = definition.called(definition.value, seed, **definition.given(chosen.model_dump()))
    if not isinstance(made, wanted):
        what = f"{chosen.name} of {kind} makes {type(made).__name__}, and not an optuna {wanted.__name__}"
        raise UserError(what, where=definition.where, help=f"return one of optuna.{kind}")
    return made


def _warmup(train: TrainConfig) -> int:
    schedule = train.schedule
    rise = schedule.pct_start * train.epochs if isinstance(schedule, OneCycle) else schedule.warmup_epochs
    return max(MIN_WARMUP_EPOCHS, math.ceil(rise))


class StatelessSampler(BaseSampler):
    """Makes a sampler anew for every draw, seeded by the study's seed, the trial's number and the value's name.

    So a sweep that was interrupted, even between two values of one trial, asks for what it would have asked for.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int) -> None:
        self._build, self._seed = build, seed

    def _fresh(self, trial: FrozenTrial, name: str = "") -> BaseSampler:
        words = f"{self._seed} {trial.number} {name}".encode()
        return self._build(int.from_bytes(hashlib.blake2b(words, digest_size=4).digest(), "little"))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._fresh(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._fresh(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._fresh(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._fresh(trial).before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._fresh(trial).after_trial(study, trial, state, values)
