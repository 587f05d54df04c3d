"""What a study begins or goes on with next: open trials, paused ones that may climb, queued ones, new ones."""

from collections import deque
from typing import TYPE_CHECKING

from sweeper import record, samplers
from sweeper.clock import Clock
from sweeper.paths import StudyFolder
from sweeper.promotion import Waiting
from sweeper.search import Grid, StudySpec
from sweeper.space import Space, key
from sweeper.trial import Job
from trainers.crash import point

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

ENQUEUED = "sweep:enqueued"  # attribute of the Optuna study: the first configurations are queued


class Asking:
    """Hands out Optuna's trials in the order in which they are to be trained, as long as the budget has room."""

    def __init__(
        self,
        spec: StudySpec,
        space: Space,
        study: "optuna.Study",
        folder: StudyFolder,
        clock: Clock,
        hidden: set[int],
    ) -> None:
        self._spec, self._space, self._study, self._folder, self._clock = spec, space, study, folder, clock
        self.adoptable: deque[Trial] = deque()  # trials that ran when a sweep or a worker died
        self.waiting = Waiting(spec.search.pruner, hidden)
        self.begun = 0  # trials, whatever became of them
        self._queued = 0  # configurations that Optuna hands out before it proposes
        self._last = self._late = False  # no new trial can begin; for want of time
        self._refused: int | None = None  # what the clock had learnt when it had room for none

    def next(self) -> "tuple[Trial, bool] | None":
        """The next trial, and whether it was begun before; None when none may begin or go on."""
        if trial := self._adopted() or self._promoted():
            return trial, True
        new = self._new()
        self._last = new is None
        if new:
            return new, False
        trial = self._promoted()
        return (trial, True) if trial else None

    @property
    def reason(self) -> str:
        """Why no new trial begins, where that is the hours' doing."""
        hours = self._spec.budget.hours
        return f"the budget of {hours:g} h is used up: no trial would finish inside" if hours and self._late else ""

    @property
    def closing(self) -> bool:
        """Whether no new trial will begin, as far as known."""
        return self._last or self._all_begun or self._clock.full()

    @property
    def _all_begun(self) -> bool:
        return self._spec.budget.trials is not None and self.begun >= self._spec.budget.trials

    def _adopted(self) -> "Trial | None":
        """The next open trial for whose next epoch there is time."""
        for trial in self.adoptable:
            job = record.read_config(self._folder.trial(trial.number)) if self._clock.limited else None
            if job is None or self._due(trial, job) or self._clock.fits(job.recipe.train, 1):
                self.adoptable.remove(trial)
                return trial
        self._late = self._late or bool(self.adoptable)
        return None

    def _due(self, trial: "Trial", job: Job) -> bool:
        """Whether all its epochs are on record, and only its end is not."""
        return len(record.history(self._folder.trial(trial.number))) >= job.recipe.train.epochs

    def _promoted(self) -> "Trial | None":
        one = self.waiting.next(lambda one: self._clock.fits(one.train, one.left), last=self.closing)
        return one.trial if one else None

    def _new(self) -> "Trial | None":
        """A new trial, if the budget has room for it: the sampler's, else one with a backbone that fits."""
        if self._all_begun:
            return None
        if self._refused == self._clock.learnt:
            return None  # nothing was learnt since, and time only got shorter
        free = not self._queued and not isinstance(self._spec.search.sampler, Grid)
        fixed = samplers.fixed(self._study, self._space, self._clock, free=free)
        self._late = fixed is None
        self._refused = self._clock.learnt if fixed is None else None
        if fixed:
            self._study.enqueue_trial(fixed)
            self._queued += 1
        return None if fixed is None else self._ask()

    def _ask(self) -> "Trial | None":
        """A new trial of Optuna's, without values yet."""
        if self._queued:
            self._queued -= 1
        elif isinstance(self._spec.search.sampler, Grid):
            params = next(self._configurations, None)
            if params is None:
                return None
            self._study.enqueue_trial(params)
        self.begun += 1
        trial = self._study.ask()
        point("asked")
        return trial

    # --------------------------------------------------------------------------------- the queue
    def begin(self) -> None:
        """Queue the configurations to begin with, once in the life of a study; a grid is queued as it is asked."""
        grid = isinstance(self._spec.search.sampler, Grid)
        if ENQUEUED not in self._study.user_attrs:
            for params in [] if grid else self._space.default():
                self._study.enqueue_trial(dict(params), skip_if_exists=True)
                point("queued")
            self._study.set_user_attr(ENQUEUED, value=True)
        self._queued = sum(trial.state.name == "WAITING" for trial in self._study.get_trials(deepcopy=False))
        own = [trial for trial in self._study.get_trials(deepcopy=False) if trial.number >= 0]
        tried = {_tried(trial) for trial in own} if grid else set()
        self._configurations = (params for params in self._space.configurations() if key(params) not in tried)


def _tried(trial: "FrozenTrial") -> str:
    return key({**trial.system_attrs.get("fixed_params", {}), **trial.params})
