"""The trial to start or resume next: open trials, promotable ones, queued configurations, then new ones."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from sweeper.search.history import is_gone
from sweeper.search.optimizer import Optimizer
from sweeper.space.space import Space, key
from sweeper.space.spec import Grid, StudySpec
from sweeper.store import records
from sweeper.store.paths import StudyFolder
from sweeper.store.trial_index import digest
from sweeper.study.asha import AshaPruner
from sweeper.study.budget import TimeBudget
from sweeper.trial import Job, TrialResult
from trainers.config import Recipe

Params = Mapping[str, Any]


class Next(NamedTuple):
    """A trial to train: a new one with its parameters, or a resumed one, whose parameters are in config.json."""

    number: int
    params: dict[str, Any] | None = None


class TrialQueue:
    """Hands out trials in the order in which to train them, as long as the budget allows."""

    def __init__(
        self, spec: StudySpec, space: Space, optimizer: Optimizer, folder: StudyFolder, budget: TimeBudget
    ) -> None:
        self._spec, self._space, self._optimizer, self._folder, self._budget = spec, space, optimizer, folder, budget
        self.resumable: deque[int] = deque()  # trials that were running when a sweep or a worker died
        self.asha = AshaPruner(spec.search.pruner)
        self.started = 0  # number of trials, whatever their outcome, without those whose folders were removed
        self.ended = False  # the search has ended before
        self._grid = isinstance(spec.search.sampler, Grid)
        self._planned: Iterator[Params] = iter(())  # configurations to try before Optuna's
        self._queued: Params | None = None  # the next of them
        self._last = self._late = False  # no new trial can start; because the time is up
        self._refused: int | None = None  # `budget.learnt` when last no trial fitted

    def begin(self, known: Collection[Params]) -> None:
        """Queue the untried configurations of a grid. For other samplers, queue the default configurations, without
        those `known` from another study and those that this study has already started.
        """
        own = self._optimizer.own_trials()
        self.started = sum(not is_gone(trial) for trial in own)
        if self._grid:
            tried = {key(trial.params) for trial in own}
            self._planned = (params for params in self._space.configurations() if key(params) not in tried)
        else:
            first = [params for params in self._space.default() if params not in known]
            self._planned = iter(first[len(own) :])
        self._queued = next(self._planned, None)

    def next(self) -> Next | None:
        """Return the next trial; None if none may start or resume."""
        if self.ended:
            return None
        resumed = self._resumed()
        if resumed is None:
            resumed = self._promoted()
        if resumed is not None:
            return Next(resumed)
        new = self._new()
        self._last = new is None
        if new is None and (resumed := self._promoted()) is not None:
            return Next(resumed)
        return new

    @property
    def reason(self) -> str:
        """The reason that no new trial starts if it is the hours; otherwise empty."""
        hours = self._spec.budget.hours
        return f"the budget of {hours:g} h is used up: no trial would finish in time" if hours and self._late else ""

    @property
    def is_draining(self) -> bool:
        """True if no new trial will start, going by what is known."""
        return self._last or self._all_started or self._budget.fits_none()

    @property
    def _all_started(self) -> bool:
        return self._spec.budget.trials is not None and self.started >= self._spec.budget.trials

    def _resumed(self) -> int | None:
        """Remove and return the first open trial whose next epoch fits in the hours; None if there is none."""
        for trial in self.resumable:
            job = records.read_config(self._folder.trial(trial)) if self._budget.limited else None
            if job is None or self._only_needs_ending(job) or self._budget.fits(job.recipe.train, 1):
                self.resumable.remove(trial)
                return trial
        self._late = self._late or bool(self.resumable)
        return None

    def _only_needs_ending(self, job: Job) -> bool:
        """True if all its epochs are on record and only the outcome is missing."""
        return len(records.history(self._folder.trial(job.trial))) >= job.planned

    def _promoted(self) -> int | None:
        one = self.asha.next(lambda one: self._budget.fits(one.train, one.left), last=self.is_draining)
        if one is None:
            return None
        self._optimizer.resume(one.job.trial)
        return one.job.trial

    def _new(self) -> Next | None:
        """Return a new trial, queued or from the sampler; None if the budget has no room for it."""
        if self._all_started or (self._grid and self._queued is None):
            return None
        if self._refused == self._budget.learnt:
            return None  # nothing was learnt since, and there is only less time
        fixed = self._fitting()
        self._late = fixed is None
        self._refused = self._budget.learnt if fixed is None else None
        if fixed is None:
            return None
        self.started += 1
        self._queued = next(self._planned, None)
        return Next(*self._optimizer.ask(fixed))

    def _fitting(self) -> Params | None:
        """Return the parameters to fix so that the next trial fits in the hours: the queued ones, or none, or a
        backbone. None if no choice makes it fit.
        """
        queued = self._queued or {}
        if self._budget.fits_none() or self._budget.surely_fits_any():
            return None if self._budget.fits_none() else queued
        free = not queued and "backbone" in self._space.names
        backbones = dict.fromkeys(recipe.train.backbone for recipe in self._space.recipes() if free)
        for chosen in [queued, *({"backbone": backbone} for backbone in backbones)]:
            train = self._space.recipe(self._optimizer.preview(chosen)).train
            if self._budget.fits_whole(train):
                return chosen
        return None


class SeenConfigurations:
    """The configurations of a study, with the seeds and trials that used them."""

    def __init__(self) -> None:
        self._trials: dict[str, dict[int, int | None]] = {}  # digest of a configuration -> seed -> trial
        self._hopeless: dict[str, TrialResult] = {}  # digest -> the first trial that ran out of memory

    def add(self, job: Job) -> None:
        """Add the configuration of `job`."""
        self.note(digest(job.recipe), job.recipe.train.seed, job.trial)

    def note(self, configuration: str, seed: int, trial: int | None) -> None:
        """Add a trial by the digest of its configuration; `trial` is None for one of another study."""
        self._trials.setdefault(configuration, {})[seed] = trial

    def mark_oom(self, configuration: str, result: TrialResult) -> None:
        """Record that a trial ran out of memory, which another seed would not change."""
        self._hopeless.setdefault(configuration, result)

    def known_oom(self, recipe: Recipe) -> TrialResult | None:
        """Return the trial that ran out of memory with this recipe, whatever its seed; None if there is none."""
        return self._hopeless.get(digest(recipe))

    def with_fresh_seed(self, recipe: Recipe) -> tuple[Recipe, int | None]:
        """Return the recipe with the first unused seed, counting from its own, and the trial here that it repeats."""
        trials = self._trials.get(digest(recipe))
        if not trials:
            return recipe, None
        seed = recipe.train.seed
        while seed in trials:
            seed += 1
        here = [number for number in trials.values() if number is not None]
        return recipe.with_seed(seed), min(here, default=None)
