"""The study: the only writer of Optuna's database and of the records. Optuna decides, the folder remembers."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from sweeper import identity, lock, memory, rebuild, record, samplers, warm
from sweeper.asking import Asking
from sweeper.clock import Clock
from sweeper.database import trouble_with
from sweeper.errors import EnvironmentFault
from sweeper.keeping import Kept
from sweeper.memory import Memory
from sweeper.paths import StudyFolder
from sweeper.patient import Patience
from sweeper.promotion import Ladder
from sweeper.repeats import Repeats, digest
from sweeper.running import Running
from sweeper.search import StudySpec
from sweeper.space import Space
from sweeper.storage import Mirrored, taught
from sweeper.trial import Job, State, TrialResult, Trouble
from trainers import files
from trainers.config import Epoch, Scores
from trainers.crash import point

RETRIED: tuple[Trouble, ...] = ("died", "hung")


class Study:
    """Makes the jobs of a search space and keeps what became of them. One process at a time holds a study.

    Every write is made so that a kill between any two of them is mended by the next `open`: no trial number is
    used twice, no finished trial is lost, and a trial that was running is handed out again by `next_job`.
    """

    def __init__(
        self, spec: StudySpec, space: Space, folder: StudyFolder, cache: Path, held: lock.Lock, patience: Patience
    ) -> None:
        self.patience = patience  # with a database that another program has locked
        self.spec, self.folder = spec, folder
        self._space, self._cache, self._lock = space, cache, held
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = Mirrored(folder.database, spec.study, patience)
        self._optuna = optuna.load_study(
            storage=self._storage,
            study_name=spec.study,
            sampler=samplers.sampler(spec.search),
            pruner=samplers.pruner(spec.search, next(space.recipes()).train),
        )
        self.best: TrialResult | None = None
        self._running: dict[int, Running] = {}
        self._clock = Clock(folder, spec.budget.hours)
        self._asking = Asking(spec, space, self._optuna, folder, self._clock, self._storage.paused)
        self._left: set[int] = set()  # trials that ran in this call and were left open
        self._repeats, self._memory = Repeats(), Memory(folder.memory)
        self._kept = Kept(folder, spec.keep)
        self._deaths: dict[int, int] = {}  # epochs a trial had when its worker died
        self._learn()
        self._recover()
        self._asking.begin()

    @classmethod
    def open(
        cls,
        spec: StudySpec,
        space: Space,
        folder: StudyFolder,
        cache: Path,
        *,
        fingerprint: str = "",
        patience: Patience | None = None,
        teach: Callable[[], None] | None = None,
    ) -> "Study":
        """Begin the study in `folder`, or take it up again.

        Raises StudyHeld while another process has it, and UserError, which prints the difference, when the study
        there asks another question, or of data with another `fingerprint`. A new study is told first, by `teach`,
        what it can learn from an earlier one.
        """
        held = lock.acquire(folder.lock)
        try:
            record.tidy(folder.root)
            if teach and identity.read(folder) is None:
                teach()
            identity.settle(spec, space, folder, fingerprint)
            with trouble_with(folder.database):
                return cls(spec, space, folder, cache, held, patience or Patience(folder.database.name))
        except BaseException:
            held.release()
            raise

    def close(self) -> None:
        """Let go of the database and of the study; a full disk costs the time since it was last kept, a second."""
        try:
            if self._lock.there:
                self._clock.save(now=True)
        except OSError as error:
            if not files.full(error):
                raise
        finally:
            self._storage.close()
            self._lock.release()

    # ---------------------------------------------------------------------------------- asking
    def next_job(self) -> Job | None:
        """What to train next: first trials that were running when a sweep or a worker died, then paused ones that
        may go on, then new ones.

        None when the budget is used up, or a grid has no configuration left, and no paused trial may go on.
        """
        with trouble_with(self.folder.database):
            found = self._asking.next()
            return self._begin(found[0], adopted=found[1]) if found else None

    def enqueue(self, asked: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        """Queue what `asked` returns behind what waits already; asked once in the life of a study."""
        with trouble_with(self.folder.database):
            self._asking.enqueue(asked)

    @property
    def reason(self) -> str:
        """Why no new trial begins, where that is the hours' doing."""
        return self._asking.reason

    def expect_final(self, growth: float, seconds: float = 0.0) -> None:
        """Keep time for retraining the winner on `growth` times as many images, and `seconds` beside that."""
        self._clock.expect_final(growth, seconds)
        self._lead()

    def _begin(self, trial: Trial, *, adopted: bool) -> Job:
        folder = self.folder.trial(trial.number)
        job = record.read_config(folder) if adopted else None
        if job is None:
            job = self._memory.begin(self._job(trial))
            record.write_config(folder, job)
            self._repeats.add(job)
        job = job.model_copy(update={"folder": folder.root, "cache": self._cache, "adopted": adopted})
        folder.paused.unlink(missing_ok=True)
        self._left.discard(job.trial)
        self._running[job.trial] = self._stand(trial, job)
        return job

    def refuse(self, job: Job) -> TrialResult | None:
        """End a new trial whose configuration another had no memory for: that is FAILED, too. None for any other."""
        other = self._repeats.hopeless(job.recipe)
        if other is None or self.recorded(job.trial):
            return None
        return self._end(job.trial, "FAILED", "oom", f"the same configuration ran out of memory in trial {other}")

    def _stand(self, trial: Trial, job: Job) -> Running:
        """A begun trial as its folder and Optuna know it."""
        epochs = record.mend(self.folder.trial(trial.number))
        reported = {step - 1 for step in self._storage.get_trial(trial._trial_id).intermediate_values}
        pruner = samplers.pruner(self.spec.search, job.recipe.train)
        return Running(job, trial, epochs, reported, pruner, before=len(epochs))

    def _job(self, trial: Trial) -> Job:
        """The job of a trial; values that a kill kept from being drawn are drawn now, and come out the same."""
        params = self._space.suggest(trial)
        point("suggested")
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
        """Record `epoch` of a running trial; False when the trial is to be pruned, or paused, or has no time left.

        An epoch on record is not recorded again. Of those the last is judged once more: a kill may have lost it. Not
        by the ladder, though: whether the trial may go on from there was asked when it was handed out.
        """
        running = self._running[trial]
        if epoch.index + 1 < len(running.epochs):
            return True
        new = epoch.index == len(running.epochs)
        if new:
            record.append(self.folder.trial(trial), epoch)
            running.epochs.append(epoch)
            self._clock.epoch(running.train, epoch)
        with trouble_with(self.folder.database):
            goes_on = self._judge(running, running.epochs[-1]) and not (new and self._pauses(running))
        return goes_on and not (running.left and self._clock.late(running.train, len(running.epochs)))

    def _judge(self, running: Running, epoch: Epoch) -> bool:
        running.report(epoch)
        point("reported")
        if epoch.index + 1 < running.train.epochs:
            self._optuna.pruner = running.pruner
            running.pruned = running.trial.should_prune()
        return not running.pruned

    def _pauses(self, running: Running) -> bool:
        running.pausing = self._asking.waiting.stops(running, last=self._asking.closing)
        return running.pausing

    def tick(self) -> None:
        """Keep the time of sweeping through a kill, and see to it that the study is still there; to be called while
        trials run.

        Raises EnvironmentFault when its folder, or that of a running trial, was taken away.
        """
        running = (one.job.folder for one in self._running.values())
        gone = next((folder for folder in running if not folder.exists()), None)
        if gone or not self._lock.there:
            raise EnvironmentFault(
                "the study's folder is gone: somebody has moved or deleted it, or a part of it, under this sweep",
                where=str(gone or self.folder.root),
                help="put it back and run the same command again; without it the study begins anew",
            )
        self._clock.save()

    def recorded(self, trial: int) -> int:
        """Number of epochs on record of a running trial."""
        return len(self._running[trial].epochs)

    def anew(self, trial: int, epoch: Epoch) -> bool:
        """Whether `epoch` of a running trial is on record otherwise: it was trained again, not told again."""
        epochs = self._running[trial].epochs
        return epoch.index < len(epochs) and epochs[epoch.index] != epoch

    def finish(self, trial: int, stopped: bool, tta: Scores | None = None) -> TrialResult:
        """Record the end of a trial whose worker is done: COMPLETE, or PRUNED or PAUSED when `report` said so.

        `tta` is its best epoch on val with test-time augmentation, if it has that. One stopped for another reason is
        INTERRUPTED: it stays open, and the next sweep goes on with it.
        """
        running = self._running[trial]
        if running.pruned:
            return self._end(trial, "PRUNED")
        if running.pausing:
            return self._pause(self._let_go(trial))
        if stopped and len(running.epochs) < running.job.recipe.train.epochs:
            return self._leave(trial)
        if not running.epochs:
            return self._end(trial, "FAILED", "error", "the worker ended without an epoch")
        return self._end(trial, "COMPLETE", tta=tta)

    def fail(self, trial: int, trouble: Trouble, text: str, *, crowded: bool = False) -> TrialResult:
        """Record that a trial failed.

        INTERRUPTED instead, so still open: on a full disk; and, to be handed out again by `next_job` at once, when
        its worker died or hung for the first time since the trial's last epoch, or ran out of memory `crowded` by
        other trials on its device; and when it ran out of memory for the first time: then in smaller pieces.
        """
        epochs, chance = self.recorded(trial), trouble in RETRIED or (trouble == "oom" and crowded)
        if trouble == "disk":
            return self._leave(trial, trouble, text)
        if chance and self._running[trial].pausing:
            return self._pause(self._let_go(trial))
        if chance and self._deaths.get(trial) != epochs:
            self._deaths[trial] = epochs
            return self._again(trial, trouble, f"{text}; trying once more")
        if trouble == "oom" and (smaller := self._memory.halve(self._running[trial].job)):
            record.write_config(self.folder.trial(trial), smaller)
            return self._again(trial, trouble, memory.said(smaller, text))
        return self._end(trial, "FAILED", trouble, text)

    def settle(self) -> list[tuple[Job, TrialResult]]:
        """End as PRUNED what is paused, when nothing runs any more and none may go on; returns what ended.

        Where one only lacks the time to, or a trial was left open, all stay so: more hours go on with them.
        """
        stuck = [] if self._asking.adoptable or self._left else self._asking.waiting.stuck()
        self._running |= {one.job.trial: one for one in stuck}
        return [(one.job, self._end(one.job.trial, "PRUNED")) for one in stuck]

    def _pause(self, one: Running) -> TrialResult:
        one.pausing, one.before = False, len(one.epochs)
        self._asking.waiting.add(one)
        self.folder.trial(one.job.trial).paused.touch()
        point("paused")
        return record.standing(one.job, one.epochs, "PAUSED")

    def _let_go(self, trial: int) -> Running:
        """The trial runs no more; what it took beside its epochs is learnt."""
        running = self._running.pop(trial)
        if (rest := running.rest) is not None:
            self._clock.rest(rest)
        return running

    def _again(self, trial: int, trouble: Trouble, text: str) -> TrialResult:
        """Leave a trial open, to be the next."""
        self._asking.adoptable.append(self._running[trial].trial)
        return self._leave(trial, trouble, text)

    def _leave(self, trial: int, trouble: Trouble | None = None, text: str | None = None) -> TrialResult:
        running = self._let_go(trial)
        self._left.add(trial)
        return record.standing(running.job, running.epochs, "INTERRUPTED", trouble=trouble, error=text)

    def _end(
        self,
        trial: int,
        state: State,
        trouble: Trouble | None = None,
        text: str | None = None,
        tta: Scores | None = None,
    ) -> TrialResult:
        running = self._let_go(trial)
        if trouble == "oom":
            self._repeats.give_up(digest(running.job.recipe), trial)
        result = record.standing(running.job, running.epochs, state, trouble=trouble, error=text, tta=tta)
        record.tidy(running.job.folder, ended=True)
        record.write_result(self.folder.trial(trial), result)
        self.folder.trial(trial).paused.unlink(missing_ok=True)
        with trouble_with(self.folder.database):
            self._tell(running.trial, result)
        point("told")
        self._kept.ended(result)
        if self._asking.waiting.ladder:
            self._asking.waiting.ladder.leave(trial, result)
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
            self._lead()

    def _lead(self) -> None:
        """Have the clock know what would be retrained, where something will."""
        if self._clock.wants_leader and self.best:
            job = record.read_config(self.folder.trial(self.best.number))
            if job:
                self._clock.leads(job.recipe.train, (self.best.best_epoch or 0) + 1)

    def results(self) -> list[TrialResult]:
        """Every trial that was begun, by number, the running ones as they stand."""
        return record.results(self.folder)

    # ------------------------------------------------------------------------------ recovering
    def _learn(self) -> None:
        """Have sampler, pruner and seeds know what an earlier study has taught this one."""
        if lessons := warm.read(self.folder):
            self._storage.learnt = taught(lessons.trials, self._space.suggest)
            for one in lessons.trials:
                self._repeats.note(one.configuration, one.seed, None)

    def _recover(self) -> None:
        """Take up what earlier calls left: ends and epochs that Optuna was not told, and trials without an end."""
        self._rebuild()
        trials = self._optuna.get_trials(deepcopy=False)
        begun = [trial for trial in trials if trial.state != TrialState.WAITING and trial.number >= 0]
        self._asking.begun = len(begun)
        ended = record.ended(self.folder)
        for trial in begun:
            entry = ended.get(trial.number)
            if entry:
                self._repeats.note(entry.configuration, entry.seed, trial.number)
            if entry and entry.result.trouble == "oom":
                self._repeats.give_up(entry.configuration, trial.number)
            if trial.state == TrialState.RUNNING:
                self._take_up(Trial(self._optuna, trial._trial_id), entry.result if entry else None)
            elif entry:
                self._note(entry.result)
            if entry:
                self._kept.ended(entry.result)
        if self._asking.waiting.ladder:
            self._climb(self._asking.waiting.ladder)

    def _rebuild(self) -> None:
        """Have Optuna's database know every trial that has a folder, should it have been lost."""
        known = sum(trial.number >= 0 for trial in self._optuna.get_trials(deepcopy=False))
        lost = list(rebuild.missing(self.folder, known, self._space.suggest))
        for trial in lost:
            self._optuna.add_trial(trial)
        if lost:
            name = self.folder.database.name
            self.patience.say(f"{name} lacked {len(lost)} trials; they were made anew from their folders")

    def _take_up(self, trial: Trial, result: TrialResult | None) -> None:
        folder = self.folder.trial(trial.number)
        if job := record.read_config(folder):
            self._repeats.add(job)
            values = {epoch.index + 1: epoch.value(job.recipe.goal) for epoch in record.history(folder)}
            self._storage.catch_up(trial._trial_id, values)
            if job.params.keys() - trial.params.keys():
                trial = self._storage.fixed(self._optuna, trial, job.params)
                self._space.suggest(trial)
        self._tell(trial, result) if result else self._asking.adoptable.append(trial)

    def _climb(self, ladder: Ladder) -> None:
        """Tell the ladder what is on record, and pause the open trials that stand at a rung and may not go on."""
        for trial in self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            ladder.learn(trial.number, [value for _, value in sorted(trial.intermediate_values.items())])
            if trial.state == TrialState.PRUNED:
                ladder.retire(trial.number, len(trial.intermediate_values))
        jobs = [(trial, record.read_config(self.folder.trial(trial.number))) for trial in self._asking.adoptable]
        standing = [self._stand(trial, job) for trial, job in jobs if job]
        for one in standing:
            ladder.learn(one.job.trial, one.values)
        for one in standing:
            if self._asking.waiting.stops(one, last=self._asking.closing):
                self._asking.adoptable.remove(one.trial)
                one.report(one.epochs[-1])
                self._pause(one)
