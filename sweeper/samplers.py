"""Optuna's samplers and pruners as a study file names them, every setting explicit."""

import hashlib
import math
import random
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from sweeper.search import (
    GP,
    TPE,
    Asha,
    EarlyStopping,
    Grid,
    Median,
    NoPruner,
    RandomSampler,
    Search,
)
from sweeper.storage import Rehearsal
from trainers.config import OneCycle, TrainConfig

if TYPE_CHECKING:
    from sweeper.clock import Clock
    from sweeper.space import Space

LEAST_WARMUP = 3  # epochs
BOUND = 600  # trials up to which TPE looks at every one
GOOD, SAMPLE = 25, 500  # beyond: the most that its gamma takes for good, and so many of the others
SEEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def sampler(search: Search) -> "Seeded":
    """The sampler of `search`; what it proposes depends on the seed, the trial's number and the record alone."""
    known = Known()
    return Seeded(lambda seed: _sampler(search, seed, known), search.seed)


def _sampler(search: Search, seed: int, known: "Known") -> BaseSampler:
    match search.sampler:
        case TPE() as chosen:
            return _tpe(seed, chosen.startup_trials, known)
        case GP() as chosen:
            return optuna.samplers.GPSampler(
                seed=seed,
                n_startup_trials=chosen.startup_trials,
                independent_sampler=_tpe(seed, chosen.startup_trials, known),
                warn_independent_sampling=False,
            )
        case RandomSampler() | Grid():  # a grid's values are queued, so nothing is left to sample
            return optuna.samplers.RandomSampler(seed=seed)


def _tpe(seed: int, startup_trials: int, known: "Known") -> BaseSampler:
    return Bounded(known, seed=seed, n_startup_trials=startup_trials, multivariate=False, constant_liar=True)


class Bounded(optuna.samplers.TPESampler):
    """Independent TPE for long studies; up to BOUND trials it is Optuna's, bit for bit.

    Beyond, the good group, which never has more than 25 trials (Optuna's gamma), stays what it was. All the others
    only say where the rest lies, and a random sample of them says it as well: so a value costs the same at ten
    thousand trials as at BOUND.
    """

    def __init__(self, known: "Known", **settings: Any) -> None:
        super().__init__(**settings)
        self._known = known

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        trials = study.get_trials(deepcopy=False, states=SEEN)
        if len(trials) > BOUND:
            study = cast("optuna.Study", _Few(study, self._known.few(trials, trial.number)))
        return super().sample_independent(study, trial, param_name, param_distribution)


class _Few:
    """A study as TPE sees it, with only some of its trials."""

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        self.direction, self.directions = study.direction, study.directions
        self._trials = trials

    def _is_multi_objective(self) -> bool:
        return len(self.directions) > 1

    def _get_trials(self, *, deepcopy: bool, states: Container[TrialState], use_cache: bool) -> list[FrozenTrial]:  # noqa: ARG002
        return [trial for trial in self._trials if trial.state in states]


class Known:
    """The trials that TPE looks at: found once for all values of a trial, the best kept from one to the next."""

    def __init__(self) -> None:
        self._ranked: list[tuple[tuple[float, ...], int, FrozenTrial]] = []  # every ended trial, the best first
        self._numbers: set[int] = set()  # of those
        self._paused: set[int] = set()  # of those that may still go on
        self._of = (-1, 0)
        self._chosen: list[FrozenTrial] = []

    def few(self, trials: Sequence[FrozenTrial], asking: int) -> list[FrozenTrial]:
        """The running trials, the best GOOD, and a sample of the others, another for each trial; by number."""
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        if self._of != (asking, len(trials) - len(running)):
            self._of = asking, len(trials) - len(running)
            self._rank(trials)
            rest = self._ranked[GOOD:]
            others = random.Random(asking).sample(rest, min(SAMPLE, len(rest)))  # noqa: S311
            self._chosen = [trial for _, _, trial in [*self._ranked[:GOOD], *others]]
        return sorted([*self._chosen, *running], key=lambda trial: trial.number)

    def _rank(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what ended, and anew what was only paused, which is pruned to us, when it was last looked at."""
        ended = {each.number: each for each in trials if each.state != TrialState.RUNNING}
        known = self._numbers - self._paused
        new = [(_badness(each), number, each) for number, each in ended.items() if number not in known]
        kept = [one for one in self._ranked if one[1] in known]
        self._ranked = sorted([*kept, *new], key=lambda one: one[:2])
        self._numbers = set(ended)
        self._paused = {number for _, number, each in new if each.datetime_complete == each.datetime_start}


def _badness(trial: FrozenTrial) -> tuple[float, ...]:
    """As TPE ranks them where more is better: completed trials by value, then pruned ones by how far they came."""
    if trial.state == TrialState.COMPLETE:
        return 0, -(trial.value or 0.0), 0
    step, value = max(trial.intermediate_values.items(), default=(-1, 0.0))
    return 1, -step, math.inf if math.isnan(value) else -value


def first(search: Search, space: "Space", count: int) -> Iterator[dict[str, Any]]:
    """The parameters of the first `count` trials as a study would ask for them while none has a result."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler(search))
    for params in islice(space.configurations(), count) if isinstance(search.sampler, Grid) else space.default():
        study.enqueue_trial(params)
    known = space.size if isinstance(search.sampler, Grid) else None
    for _ in range(count if known is None else min(count, known)):
        yield space.suggest(study.ask())


def fixed(study: optuna.Study, space: "Space", clock: "Clock", *, free: bool) -> dict[str, Any] | None:
    """What to fix of the next trial of `study` so that it ends within the hours: nothing, or its backbone.

    None where nothing makes it fit. Unless `free` its values are settled already, so that nothing can be fixed.
    """
    if clock.full() or clock.roomy():
        return None if clock.full() else {}
    backbones = dict.fromkeys(recipe.train.backbone for recipe in space.recipes())
    others = [{"backbone": backbone} for backbone in backbones] if free and "backbone" in space.names else []
    for chosen in [{}, *others]:
        train = space.recipe(_proposal(study, space, chosen)).train
        if clock.fits(train, train.epochs):
            return chosen
    return None


def _proposal(study: optuna.Study, space: "Space", chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that the next trial of `study` would have with those `chosen`; asked in a copy."""
    trials = study.get_trials(deepcopy=False)
    learnt = [trial for trial in trials if trial.number < 0]
    rehearsal = optuna.create_study(direction="maximize", sampler=study.sampler, storage=Rehearsal(learnt))
    rehearsal.add_trials(trials[len(learnt) :])
    if chosen:
        rehearsal.enqueue_trial(dict(chosen))
    return space.suggest(rehearsal.ask())


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
        case Asha(type="stopping") as chosen:
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=chosen.min_epochs, reduction_factor=chosen.reduction_factor
            )
        case EarlyStopping() as chosen:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return optuna.pruners.PatientPruner(None, patience=chosen.patience, min_delta=chosen.min_delta)
        case NoPruner() | Asha():  # which trials are promoted the study's own ladder says
            return optuna.pruners.NopPruner()


def _warmup(train: TrainConfig) -> int:
    schedule = train.schedule
    rise = schedule.rise * train.epochs if isinstance(schedule, OneCycle) else schedule.warmup_epochs
    return max(LEAST_WARMUP, math.ceil(rise))


class Seeded(BaseSampler):
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
