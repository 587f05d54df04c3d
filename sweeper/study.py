"""The study: the only writer of Optuna's database and of the records. Optuna decides, the folder remembers."""

import json
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner
from optuna.trial import Trial, TrialState

from sweeper import identity, lock, record, samplers
from sweeper.errors import EnvironmentFault
from sweeper.paths import StudyFolder
from sweeper.repeats import Repeats
from sweeper.search import Grid, StudySpec
from sweeper.space import Space
from sweeper.storage import Mirrored
from sweeper.trial import Job, State, TrialResult, Trouble
from trainers.config import Epoch, Scores

RETRIED: tuple[Trouble, ...] = ("died", "hung")
ENQUEUED = "sweep:enqueued"  # attribute of the Optuna study: the first configurations are queued
PROBED = "sweep:probed"  # so are those that a probe chose


@dataclass
class _Running:
    """A trial between its job and its end."""

    job: Job
    trial: Trial
    epochs: list[Epoch]
    reported: set[int]  # epochs that Optuna has
    pruner: BasePruner
    pruned: bool = False


class Study:
    """Makes the jobs of a search space and keeps what became of them. One process at a time holds a study.

    Every write is made so that a kill between any two of them is mended by the next `open`: no trial number is
    used twice, no finished trial is lost, and a trial that was running is handed out again by `next_job`.
    """

    def __init__(self, spec: StudySpec, space: Space, folder: StudyFolder, cache: Path, held: lock.Lock) -> None:
        self.spec, self.folder = spec, folder
        self._space, self._cache, self._lock = space, cache, held
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = Mirrored(folder.database, spec.study)
        self._optuna = optuna.load_study(
            storage=self._storage,
            study_name=spec.study,
            sampler=samplers.sampler(spec.search),
            pruner=samplers.pruner(spec.search, next(space.recipes()).train),
        )
        self.best: TrialResult | None = None
        self._running: dict[int, _Running] = {}
        self._adoptable: deque[Trial] = deque()
        self._repeats = Repeats()
        self._deaths: dict[int, int] = {}  # epochs a trial had when its worker died
        self._recover()
        self._enqueue()
        self._opened = time.monotonic()

    @classmethod
    def open(
        cls, spec: StudySpec, space: Space, folder: StudyFolder, cache: Path, *, fingerprint: str = ""
    ) -> "Study":
        """Begin the study in `folder`, or take it up again.

        Raises StudyHeld while another process has it, and UserError, which prints the difference, when the study
        there asks another question, or of data with another `fingerprint`.
        """
        held = lock.acquire(folder.lock)
        try:
            record.tidy(folder.root)
            identity.settle(spec, space, folder, fingerprint)
            with _trouble_with(folder.database):
                return cls(spec, space, folder, cache, held)
        except BaseException:
            held.release()
            raise

    def close(self) -> None:
        """Let go of the database and of the study."""
        self._storage.close()
        self._lock.release()

    # ---------------------------------------------------------------------------------- asking
    def next_job(self) -> Job | None:
        """What to train next: first trials that were running when a sweep or a worker died, then new ones.

        None when the budget is used up or a grid has no configuration left.
        """
        with _trouble_with(self.folder.database):
            if self._adoptable:
                return self._begin(self._adoptable.popleft(), adopted=True)
            if self._spent():
                return None
            trial = self._ask()
            return self._begin(trial, adopted=False) if trial else None

    def _spent(self) -> bool:
        budget = self.spec.budget
        if budget.trials is not None and self._begun >= budget.trials:
            return True
        hours = (self._before + time.monotonic() - self._opened) / 3600
        return budget.hours is not None and hours >= budget.hours

    def _ask(self) -> Trial | None:
        """A new trial of Optuna's, without values yet."""
        if self._queued:
            self._queued -= 1
        elif isinstance(self.spec.search.sampler, Grid):
            params = next(self._configurations, None)
            if params is None:
                return None
            self._optuna.enqueue_trial(params)
        self._begun += 1
        return self._optuna.ask()

    def _begin(self, trial: Trial, *, adopted: bool) -> Job:
        folder = self.folder.trial(trial.number)
        job = record.read_config(folder) if adopted else None
        if job is None:
            job = self._job(trial)
            record.write_config(folder, job)
            self._repeats.add(job)
        job = job.model_copy(update={"folder": folder.root, "cache": self._cache, "adopted": adopted})
        reported = {step - 1 for step in self._storage.get_trial(trial._trial_id).intermediate_values}
        pruner = samplers.pruner(self.spec.search, job.recipe.train)
        self._running[job.trial] = _Running(job, trial, record.mend(folder), reported, pruner)
        return job

    def _job(self, trial: Trial) -> Job:
        """The job of a trial; values that a kill kept from being drawn are drawn now, and come out the same."""
        params = self._space.suggest(trial)
        recipe, repeat_of = self._repeats.reseeded(self._space.recipe(params))
        return Job(
            study=self.spec.study,
            trial=trial.number,
            recipe=recipe,
            params=params,
            folder=self.folder.trial(trial.number).root,
            cache=self._cache,
            repeat_of=repeat_of,
        )

    # --------------------------------------------------------------------------------- telling
    def report(self, trial: int, epoch: Epoch) -> bool:
        """Record `epoch` of a running trial; False when the trial is to be pruned.

        An epoch on record is not recorded again. Of those the last is judged once more: a kill may have lost it.
        """
        running = self._running[trial]
        if epoch.index + 1 < len(running.epochs):
            return True
        if epoch.index == len(running.epochs):
            record.append(self.folder.trial(trial), epoch)
            running.epochs.append(epoch)
        with _trouble_with(self.folder.database):
            return self._judge(running, running.epochs[-1])

    def _judge(self, running: _Running, epoch: Epoch) -> bool:
        recipe = running.job.recipe
        if epoch.index not in running.reported:
            running.trial.report(epoch.value(recipe.goal), step=epoch.index + 1)
            running.reported.add(epoch.index)
        if epoch.index + 1 < recipe.train.epochs:
            self._optuna.pruner = running.pruner
            running.pruned = running.trial.should_prune()
        return not running.pruned

    def recorded(self, trial: int) -> int:
        """Number of epochs on record of a running trial."""
        return len(self._running[trial].epochs)

    def finish(self, trial: int, stopped: bool, tta: Scores | None = None) -> TrialResult:
        """Record the end of a trial whose worker is done: COMPLETE, or PRUNED when `report` said so.

        `tta` is its best epoch on val with test-time augmentation, if it has that. One stopped for another reason is
        INTERRUPTED: it stays open, and the next sweep goes on with it.
        """
        running = self._running[trial]
        if running.pruned:
            return self._end(trial, "PRUNED")
        if stopped and len(running.epochs) < running.job.recipe.train.epochs:
            return self._leave(trial)
        if not running.epochs:
            return self._end(trial, "FAILED", "error", "the worker ended without an epoch")
        return self._end(trial, "COMPLETE", tta=tta)

    def fail(self, trial: int, trouble: Trouble, text: str) -> TrialResult:
        """Record that a trial failed.

        INTERRUPTED instead, so still open: on a full disk; and, to be handed out again by `next_job` at once, when
        its worker died or hung for the first time since the trial's last epoch.
        """
        epochs = self.recorded(trial)
        if trouble == "disk":
            return self._leave(trial, trouble, text)
        if trouble in RETRIED and self._deaths.get(trial) != epochs:
            self._deaths[trial] = epochs
            self._adoptable.append(self._running[trial].trial)
            return self._leave(trial, trouble, text)
        return self._end(trial, "FAILED", trouble, text)

    def _leave(self, trial: int, trouble: Trouble | None = None, text: str | None = None) -> TrialResult:
        running = self._running.pop(trial)
        return record.standing(running.job, running.epochs, "INTERRUPTED", trouble=trouble, error=text)

    def _end(
        self,
        trial: int,
        state: State,
        trouble: Trouble | None = None,
        text: str | None = None,
        tta: Scores | None = None,
    ) -> TrialResult:
        running = self._running.pop(trial)
        result = record.standing(running.job, running.epochs, state, trouble=trouble, error=text, tta=tta)
        record.tidy(running.job.folder)
        record.write_result(self.folder.trial(trial), result)
        with _trouble_with(self.folder.database):
            self._tell(running.trial, result)
        return result

    def _tell(self, trial: Trial, result: TrialResult) -> None:
        if result.state == "COMPLETE":
            self._optuna.tell(trial, result.value)
        elif result.state == "PRUNED":
            self._optuna.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("trouble", f"{result.trouble}: {result.error}")
            self._optuna.tell(trial, state=TrialState.FAIL)
        self._note(result)

    def _note(self, result: TrialResult) -> None:
        if result.state == "COMPLETE" and (self.best is None or (result.value or 0) > (self.best.value or 0)):
            self.best = result

    def results(self) -> list[TrialResult]:
        """Every trial that was begun, by number, the running ones as they stand."""
        return record.results(self.folder)

    # ------------------------------------------------------------------------------ recovering
    def _recover(self) -> None:
        """Take up what earlier calls left: ends and epochs that Optuna was not told, and trials without an end."""
        trials = self._optuna.get_trials(deepcopy=False)
        begun = [trial for trial in trials if trial.state != TrialState.WAITING]
        self._begun = len(begun)
        ended = record.ended(self.folder)
        self._before = record.seconds(self.folder) if self.spec.budget.hours else 0.0
        for trial in begun:
            entry = ended.get(trial.number)
            if entry:
                self._repeats.note(entry.configuration, entry.seed, trial.number)
            if trial.state == TrialState.RUNNING:
                self._take_up(Trial(self._optuna, trial._trial_id), entry.result if entry else None)
            elif entry:
                self._note(entry.result)

    def _take_up(self, trial: Trial, result: TrialResult | None) -> None:
        folder = self.folder.trial(trial.number)
        if job := record.read_config(folder):
            self._repeats.add(job)
            values = {epoch.index + 1: epoch.value(job.recipe.goal) for epoch in record.history(folder)}
            self._storage.catch_up(trial._trial_id, values)
            if job.params.keys() - trial.params.keys():
                trial = self._storage.fixed(self._optuna, trial, job.params)
                self._space.suggest(trial)
        self._tell(trial, result) if result else self._adoptable.append(trial)

    def _enqueue(self) -> None:
        """Queue the configurations to begin with, once in the life of a study; a grid is queued as it is asked."""
        if ENQUEUED not in self._optuna.user_attrs:
            for params in [] if isinstance(self.spec.search.sampler, Grid) else self._space.default():
                self._optuna.enqueue_trial(params, skip_if_exists=True)
            self._optuna.set_user_attr(ENQUEUED, value=True)
        trials = self._optuna.get_trials(deepcopy=False)
        self._queued = sum(trial.state == TrialState.WAITING for trial in trials)
        grid = trials if isinstance(self.spec.search.sampler, Grid) else []
        tried = {_key({**trial.system_attrs.get("fixed_params", {}), **trial.params}) for trial in grid}
        self._configurations = (params for params in self._space.configurations() if _key(params) not in tried)

    def enqueue(self, asked: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        """Queue what `asked` returns behind what waits already; asked once in the life of a study."""
        if PROBED not in self._optuna.user_attrs:
            chosen = asked()
            with _trouble_with(self.folder.database):
                for params in chosen:
                    self._optuna.enqueue_trial(dict(params), skip_if_exists=True)
                self._optuna.set_user_attr(PROBED, value=True)
                self._queued = len(self._optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


@contextmanager
def _trouble_with(database: Path) -> Iterator[None]:
    """What the file system or a lock does to the database is told as such."""
    try:
        yield
    except (StorageInternalError, sqlite3.Error) as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise EnvironmentFault(
            f"the study's database cannot be used: {cause}",
            where=str(database),
            help="free the disk, or end the program that has it locked, and run the same command again",
        ) from error
