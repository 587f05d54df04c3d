"""The optimizer: the Optuna study of a sweep, held in memory and filled from the run folders."""

from collections.abc import Container, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper.search import samplers
from sweeper.search.history import direction
from sweeper.search.prior import StartingPrior
from sweeper.trial import SearchState, TrialResult

if TYPE_CHECKING:
    from sweeper.space.space import Space
    from sweeper.space.spec import Search
    from trainers.config import TrainConfig


STUDY = -1  # stands for the study among trial numbers


class Optimizer:
    """Draws parameters from Optuna and reports their outcomes to it, by our trial numbers.

    A proposal depends only on the seed, the trial's number and the trials so far: an optimizer that is filled again
    with the same trials continues as this one would. Nothing that it holds is on disk.
    """

    def __init__(
        self,
        search: "Search",
        space: "Space",
        past: Sequence[FrozenTrial] = (),
        transferred: Sequence[FrozenTrial] = (),
        *,
        minimize: bool = False,
        states: Mapping[int, SearchState] | None = None,
    ) -> None:
        """Start with the `past` trials of the study, from number 0, and with those `transferred` from another.

        `minimize`: lower values of the metric are better. `states`: what `state` returned for past trials, by number.
        """
        samplers.set_verbosity(search)
        self._search, self._space, self._minimize = search, space, minimize
        self._prior = StartingPrior(search, space)
        self._storage = _Storage(transferred)
        self._study = optuna.create_study(
            direction=direction(minimize=minimize), storage=self._storage, sampler=samplers.sampler(search)
        )
        self._turn = 0
        self._restore(past, states or {})
        self._study.add_trials(past)

    # ------------------------------------------------------------------------------------- asking
    def ask(self, fixed: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Return the number and the parameters of a new trial; those in `fixed` keep their values."""
        trial = self._prior.ask(self._study, len(self.own_trials()), fixed or {})
        return trial.number, self._space.suggest(trial)

    def preview(self, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that `ask` would return, drawn from a copy."""
        known = self.own_trials(), self._storage.transferred
        states = {len(known[0]): self._state({})} if self._search.has_own else {}
        other = Optimizer(self._search, self._space, *known, minimize=self._minimize, states=states)
        return other.ask(fixed)[1]

    def own_trials(self) -> list[FrozenTrial]:
        """Return every trial of the study by number, with paused ones as pruned."""
        trials = self._study.get_trials(deepcopy=False)
        return trials[len(self._storage.transferred) :]

    def state(self, trial: int) -> SearchState | None:
        """Return what a sampler and a pruner of extension files keep besides the trials.

        None if neither comes from such a file, or if nothing has changed since the last call.
        """
        changed = self._storage.changed & {trial, STUDY}
        self._storage.changed -= changed
        if not (changed and self._search.has_own):
            return None
        self._turn += 1
        return self._state(self._storage.get_trial_system_attrs(trial))

    def _state(self, trial: Mapping[str, Any]) -> SearchState:
        study = self._storage.get_study_system_attrs(self._study._study_id)
        return SearchState(turn=self._turn, trial=dict(trial), study=dict(study))

    def _restore(self, past: Sequence[FrozenTrial], states: Mapping[int, SearchState]) -> None:
        """Restore the attributes of past trials and of the study."""
        for number, state in states.items():
            if number < len(past):  # otherwise it comes from a preview, and concerns only the study
                past[number].system_attrs = dict(state.trial)
        latest = max(states.values(), key=lambda state: state.turn, default=None)
        for key, value in latest.study.items() if latest else ():
            self._storage.set_study_system_attr(self._study._study_id, key, value)
        self._turn = latest.turn if latest else 0
        self._storage.changed.clear()

    # ------------------------------------------------------------------------------------ reporting
    def report(self, trial: int, epoch: int, value: float) -> None:
        """Report the `value` of a running trial after `epoch`; reporting it again changes nothing."""
        self._storage.set_trial_intermediate_value(trial, epoch, value)

    def should_prune(self, trial: int, train: "TrainConfig") -> bool:
        """True if a running trial of `train` should stop after its last report."""
        return samplers.prunes(self._search, train, self._study, self._storage.get_trial(trial))

    def tell(self, result: TrialResult) -> None:
        """Report the outcome of a trial."""
        self.resume(result.number)
        if result.state == "COMPLETE":
            self._study.tell(result.number, result.value)
        else:
            state = TrialState.PRUNED if result.state == "PRUNED" else TrialState.FAIL
            self._study.tell(result.number, state=state)

    def pause(self, trial: int) -> None:
        """Let a sampler learn from a running trial as from a pruned one, though it may continue."""
        self._storage.paused.add(trial)

    def resume(self, trial: int) -> None:
        """Undo `pause`."""
        self._storage.paused.discard(trial)


class _Storage(InMemoryStorage):
    """Optuna's in-memory storage, in which a sampler also finds transferred trials, and paused ones as pruned.

    It holds a single study, so the id of a trial is its number.
    """

    def __init__(self, transferred: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self.transferred = list(transferred)  # numbered below 0, before the study's own
        self.paused: set[int] = set()
        self.changed: set[int] = set()  # trials, and STUDY, whose attributes have changed since `state`

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        self.changed.add(trial_id)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        super().set_study_system_attr(study_id, key, value)
        self.changed.add(STUDY)

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
