"""Optuna's samplers and pruners, by their names in a study file, with every setting explicit."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, QMCSampler
from optuna.trial import FrozenTrial, TrialState

from sweeper.search.history import direction
from sweeper.search.prior import StartingPrior
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
    Pruner,
    RandomSampler,
    Sampler,
    Search,
)
from trainers import extensions
from trainers.config import OneCycle, TrainConfig
from trainers.signatures import Kind
from trainers.support.errors import UserError

if TYPE_CHECKING:
    from sweeper.space.space import Space

MAX_WARMUP_EPOCHS = 3  # that the median pruner waits if the learning rate rises no longer
TRIED = (0.3, 0.5, 0.2, 0.4)  # values of the trials on which a sampler is tried out
Called = Callable[..., Any]
"""Calls its first argument with the others."""


def set_verbosity(search: Search) -> None:
    """Let Optuna log warnings, but only errors for a custom sampler, which is made per draw and would repeat them."""
    custom = isinstance(search.sampler, CustomSampler)
    optuna.logging.set_verbosity(optuna.logging.ERROR if custom else optuna.logging.WARNING)


def sampler(search: Search) -> "StatelessSampler":
    """Return the sampler of `search`, whose proposals depend only on the seed, the trial's number and the record."""
    called = _caller("samplers", search.sampler)
    return StatelessSampler(lambda seed: _sampler(search, seed), search.seed, called)


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
            _refuse_ending(made, chosen.name)
            return made


def _tpe(seed: int, startup_trials: int) -> BaseSampler:
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=startup_trials, multivariate=False, constant_liar=True
    )


def try_own(search: Search, space: "Space", *, minimize: bool = False) -> None:
    """Try out a sampler and a pruner of extension files on a few throwaway trials.

    Raises UserError, with the line in the user's file, if one fails or proposes different values for equal seeds.
    """
    if not search.has_own:
        return
    one, other = (_tried(search, space, minimize=minimize) for _ in range(2))
    if one != other and isinstance(search.sampler, CustomSampler):
        definition = extensions.needed("samplers", search.sampler.name)
        raise UserError(
            f"{definition.name} of samplers proposes different values for equal seeds",
            where=definition.where,
            help="pass the seed on, as in RandomSampler(seed=seed): a resumed study must propose the same values",
        )


def _tried(search: Search, space: "Space", *, minimize: bool) -> list[dict[str, Any]]:
    """Return the parameters of a few trials, each of which is judged after one epoch and completes."""
    set_verbosity(search)
    study = optuna.create_study(direction=direction(minimize=minimize), sampler=sampler(search))
    found: list[dict[str, Any]] = []
    for value in TRIED:
        trial = study.ask()
        found.append(space.suggest(trial))
        trial.report(value, 1)
        prunes(search, space.recipe(found[-1]).train, study, study.trials[-1])
        study.tell(trial, value)
    return found


def first(search: Search, space: "Space", count: int, *, minimize: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the parameters of the first `count` trials, as a study proposes them while no trial has a result."""
    set_verbosity(search)
    study = optuna.create_study(direction=direction(minimize=minimize), sampler=sampler(search))
    grid = isinstance(search.sampler, Grid)
    queued = list(islice(space.configurations(), count)) if grid else space.default()
    prior = StartingPrior(search, space)
    for number in range(len(queued) if grid else count):
        yield space.suggest(prior.ask(study, number, queued[number] if number < len(queued) else {}))


def prunes(search: Search, train: TrainConfig, study: optuna.Study, trial: FrozenTrial) -> bool:
    """True if the pruner of `search` stops a running trial of `train`."""
    called = _caller("pruners", search.pruner)
    if search.folds and isinstance(search.pruner, EarlyStopping):
        trial = _in_fold(trial, train.epochs)
    return bool(called(pruner(search, train).prune, study, trial))


def _in_fold(trial: FrozenTrial, epochs: int) -> FrozenTrial:
    """Return the trial as seen from its current fold, of `epochs` epochs; each fold starts with new weights."""
    found = copy(trial)
    before = (max(trial.intermediate_values, default=1) - 1) // epochs * epochs
    found.intermediate_values = {step: value for step, value in trial.intermediate_values.items() if step > before}
    return found


def pruner(search: Search, train: TrainConfig) -> BasePruner:
    """Return the pruner of `search` for a trial of `train`, whose learning-rate warm-up and epochs matter."""
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
        case NoPruner() | Asha():  # the study's own rungs decide
            return optuna.pruners.NopPruner()
        case CustomPruner() as chosen:
            stops: BasePruner = _own("pruners", chosen, search.seed, BasePruner)
            return stops


def _own(kind: Kind, chosen: CustomSampler | CustomPruner, seed: int, wanted: type) -> Any:
    """Return what a function of an extension file makes for this seed; UserError if it is not a `wanted`."""
    definition = extensions.needed(kind, chosen.name)
    made = definition.called(definition.value, seed, **definition.given(chosen.model_dump()))
    if not isinstance(made, wanted):
        what = f"{chosen.name} of {kind} returns {type(made).__name__}, not an Optuna {wanted.__name__}"
        raise UserError(what, where=definition.where, help=f"return one of optuna.{kind}")
    return made


def _caller(kind: Kind, chosen: Sampler | Pruner) -> Called:
    """Return a function that calls methods of a sampler or pruner; errors of a custom one name the user's line."""
    custom = isinstance(chosen, CustomSampler | CustomPruner)
    return extensions.needed(kind, chosen.name).called if custom else _plainly


def _plainly(function: Callable[..., Any], *given: Any) -> Any:
    return function(*given)


def _refuse_ending(made: BaseSampler, name: str) -> None:
    """Raise UserError for a sampler that ends Optuna's own loop, which does not run here."""
    if isinstance(made, GridSampler | BruteForceSampler):
        what = f"{name} of samplers returns a {type(made).__name__}, which can only stop Optuna's own loop"
        raise UserError(
            what,
            where=extensions.needed("samplers", name).where,
            help="write sampler: grid, which tries every configuration once",
        )


def _warmup(train: TrainConfig) -> int:
    """Return the epochs before a trial is judged: just under half of a short training."""
    schedule = train.schedule
    rise = schedule.pct_start * train.epochs if isinstance(schedule, OneCycle) else schedule.warmup_epochs
    return max(min(MAX_WARMUP_EPOCHS, math.ceil(train.epochs / 2) - 1), math.ceil(rise))


class StatelessSampler(BaseSampler):
    """Makes a new sampler for every draw, seeded by the study's seed, the trial's number and the parameter's name.

    An interrupted sweep, even between two parameters of a trial, therefore resumes with the same proposals.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int, called: Called) -> None:
        self._build, self._seed, self._called = build, seed, called

    def _fresh(self, trial: FrozenTrial, name: str = "") -> BaseSampler:
        words = f"{self._seed} {trial.number} {name}".encode()
        return self._build(int.from_bytes(hashlib.blake2b(words, digest_size=4).digest(), "little"))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        found: dict[str, BaseDistribution]
        found = self._called(self._fresh(trial).infer_relative_search_space, study, trial)
        return found

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        fresh = self._fresh(trial)
        if isinstance(fresh, QMCSampler):  # one sequence per study, its position in the study's attributes
            fresh = self._build(self._seed)
        found: dict[str, Any] = self._called(fresh.sample_relative, study, trial, search_space)
        return found

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        fresh = self._fresh(trial, param_name)
        return self._called(fresh.sample_independent, study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._called(self._fresh(trial).before_trial, study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._called(self._fresh(trial).after_trial, study, trial, state, values)
