"""What a study begins or goes on with next: open trials, paused ones that may climb, queued ones, new ones."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

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
    """A trial to be trained: a new one with its parameters, or one that is resumed, whose config.json has them."""

    number: int
    params: dict[str, Any] | None = None


class TrialQueue:
    """Hands out trials in the order in which they are to be trained, as long as the budget has room."""

    def __init__(
        self, spec: StudySpec, space: Space, optimizer: Optimizer, folder: StudyFolder, budget: TimeBudget
    ) -> None:
        self._spec, self._space, self._optimizer, self._folder, self._budget = spec, space, optimizer, folder, budget
        self.resumable: deque[int] = deque()  # trials that ran when a sweep or a worker died
        self.asha = AshaPruner(spec.search.pruner)
        self.started = 0  # trials, whatever became of them
        self._grid = isinstance(spec.search.sampler, Grid)
        self._planned: Iterator[Params] = iter(())  # configurations to be tried before Optuna is asked
        self._queued: Params | None = None  # the next of them
        self._last = self._late = False  # no new trial can begin; for want of time
        self._refused: int | None = None  # what the budget had learnt when it had room for none

    def begin(self, known: Collection[Params]) -> None:
        """Queue the configurations of a grid that were not tried yet; else the first of any study, but those `known`
        from another, as many as the study has not begun with.
        """
        own = self._optimizer.own_trials()
        self.started = len(own)
        if self._grid:
            tried = {key(trial.params) for trial in own}
            self._planned = (params for params in self._space.configurations() if key(params) not in tried)
        else:
            first = [params for params in self._space.default() if params not in known]
            self._planned = iter(first[self.started :])
        self._queued = next(self._planned, None)

    def next(self) -> Next | None:
        """The next trial; None when none may begin or go on."""
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
        """Why no new trial begins, where that is the hours' doing."""
        hours = self._spec.budget.hours
        return f"the budget of {hours:g} h is used up: no trial would finish inside" if hours and self._late else ""

    @property
    def is_draining(self) -> bool:
        """Whether no new trial will begin, as far as known."""
        return self._last or self._all_started or self._budget.fits_none()

    @property
    def _all_started(self) -> bool:
        return self._spec.budget.trials is not None and self.started >= self._spec.budget.trials

    def _resumed(self) -> int | None:
        """The next open trial for whose next epoch there is time."""
        for trial in self.resumable:
            job = records.read_config(self._folder.trial(trial)) if self._budget.limited else None
            if job is None or self._only_needs_ending(job) or self._budget.fits(job.recipe.train, 1):
                self.resumable.remove(trial)
                return trial
        self._late = self._late or bool(self.resumable)
        return None

    def _only_needs_ending(self, job: Job) -> bool:
        """Whether all its epochs are on record, and only its end is not."""
        return len(records.history(self._folder.trial(job.trial))) >= job.planned

    def _promoted(self) -> int | None:
        one = self.asha.next(lambda one: self._budget.fits(one.train, one.left), last=self.is_draining)
        if one is None:
            return None
        self._optimizer.resume(one.job.trial)
        return one.job.trial

    def _new(self) -> Next | None:
        """A new trial, if the budget has room for it: what is queued, or the sampler's."""
        if self._all_started or (self._grid and self._queued is None):
            return None
        if self._refused == self._budget.learnt:
            return None  # nothing was learnt since, and time only got shorter
        fixed = self._fitting()
        self._late = fixed is None
        self._refused = self._budget.learnt if fixed is None else None
        if fixed is None:
            return None
        self.started += 1
        self._queued = next(self._planned, None)
        return Next(*self._optimizer.ask(fixed))

    def _fitting(self) -> Params | None:
        """What to fix of the next trial so that it ends within the hours: what is queued, else nothing, or its
        backbone. None where nothing makes it fit.
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
    """The configurations of a study, and with which seeds which trials had them."""

    def __init__(self) -> None:
        self._trials: dict[str, dict[int, int | None]] = {}  # digest of a configuration -> seed -> trial
        self._hopeless: dict[str, TrialResult] = {}  # digest -> the first trial that there was no memory for

    def add(self, job: Job) -> None:
        """Note that `job` exists."""
        self.note(digest(job.recipe), job.recipe.train.seed, job.trial)

    def note(self, configuration: str, seed: int, trial: int | None) -> None:
        """The same of a trial that is known by the digest of its configuration; None for one of another study."""
        self._trials.setdefault(configuration, {})[seed] = trial

    def mark_oom(self, configuration: str, result: TrialResult) -> None:
        """Note that a trial ended for want of memory, which another seed does not change."""
        self._hopeless.setdefault(configuration, result)

    def known_oom(self, recipe: Recipe) -> TrialResult | None:
        """The trial that showed that there is no memory for this recipe, whatever its seed."""
        return self._hopeless.get(digest(recipe))

    def with_fresh_seed(self, recipe: Recipe) -> tuple[Recipe, int | None]:
        """The recipe with the first seed, from its own on, that it was not trained with, and whom here it repeats."""
        trials = self._trials.get(digest(recipe))
        if not trials:
            return recipe, None
        seed = recipe.train.seed
        while seed in trials:
            seed += 1
        train = recipe.train.model_copy(update={"seed": seed})
        here = [number for number in trials.values() if number is not None]
        return recipe.model_copy(update={"train": train}), min(here, default=None)
