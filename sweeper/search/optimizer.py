"""The optimizer: the Optuna study of a sweep, which lives in memory and is filled from the run folders."""

from collections.abc import Container, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper.search import samplers
from sweeper.search.history import direction
from sweeper.trial import TrialResult

if TYPE_CHECKING:
    from sweeper.space.space import Space
    from sweeper.space.spec import Search
    from trainers.config import TrainConfig


class Optimizer:
    """Asks Optuna for parameters and tells it what became of them, in the numbers of our trials.

    What it proposes depends on the seed, the trial's number and the trials alone: one that is filled anew with the
    same trials goes on as this one would. Nothing that it holds is on disk.
    """

    def __init__(
        self,
        search: "Search",
        space: "Space",
        past: Sequence[FrozenTrial] = (),
        transferred: Sequence[FrozenTrial] = (),
        *,
        minimize: bool = False,
    ) -> None:
        """Begin with the `past` trials of the study, from number 0 on, and with those `transferred` from another.

        `minimize`: less of the metric is better.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search, self._space, self._minimize = search, space, minimize
        self._storage = _Storage(transferred)
        self._study = optuna.create_study(
            direction=direction(minimize=minimize), storage=self._storage, sampler=samplers.sampler(search)
        )
        self._study.add_trials(past)

    # ------------------------------------------------------------------------------------- asking
    def ask(self, fixed: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Number and parameters of a new trial, those `fixed` as they are."""
        if fixed:
            self._study.enqueue_trial(dict(fixed))
        trial = self._study.ask()
        return trial.number, self._space.suggest(trial)

    def preview(self, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that `ask` would return; they are asked in a copy."""
        known = self.own_trials(), self._storage.transferred
        other = Optimizer(self._search, self._space, *known, minimize=self._minimize)
        return other.ask(fixed)[1]

    def own_trials(self) -> list[FrozenTrial]:
        """Every trial of the study by number; one that is paused as a pruned one."""
        trials = self._study.get_trials(deepcopy=False)
        return trials[len(self._storage.transferred) :]

    # ------------------------------------------------------------------------------------ telling
    def report(self, trial: int, epoch: int, value: float) -> None:
        """Tell the `value` of a running trial after `epoch`; telling it again changes nothing."""
        self._storage.set_trial_intermediate_value(trial, epoch, value)

    def should_prune(self, trial: int, train: "TrainConfig") -> bool:
        """Whether a running trial of `train` is to end after what was reported last."""
        pruner = samplers.pruner(self._search, train)
        return pruner.prune(self._study, self._storage.get_trial(trial))

    def tell(self, result: TrialResult) -> None:
        """Tell how a trial ended."""
        self.resume(result.number)
        if result.state == "COMPLETE":
            self._study.tell(result.number, result.value)
        else:
            state = TrialState.PRUNED if result.state == "PRUNED" else TrialState.FAIL
            self._study.tell(result.number, state=state)

    def pause(self, trial: int) -> None:
        """Have a sampler learn from what a running trial has shown, as from a pruned one, though it may go on."""
        self._storage.paused.add(trial)

    def resume(self, trial: int) -> None:
        """Take back `pause`."""
        self._storage.paused.discard(trial)


class _Storage(InMemoryStorage):
    """Optuna's memory, in which a sampler finds transferred trials, too, and paused ones as pruned.

    It holds a single study, so the id of a trial is its number.
    """

    def __init__(self, transferred: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self.transferred = list(transferred)  # numbered below 0, before the study's own
        self.paused: set[int] = set()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if states == (TrialState.WAITING,) or not (self.paused or self.transferred):
            return super().get_all_trials(study_id, deepcopy, states)
        own = (self._shown(trial) for trial in super().get_all_trials(study_id, deepcopy))
        trials = [*self.transferred, *own]
        return trials if states is None else [trial for trial in trials if trial.state in states]

    def _shown(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.number in self.paused:
            trial = copy(trial)
            trial.state, trial.datetime_complete = TrialState.PRUNED, trial.datetime_start
        return trial
