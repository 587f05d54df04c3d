"""The study: what the loop asks it and tells it. Optuna decides, the folder remembers.

With `ends` and `recovery` it is the only writer of Optuna's database and of the records.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import identity, lock, record, recovery
from sweeper.database import trouble_with
from sweeper.ends import Ends
from sweeper.errors import EnvironmentFault
from sweeper.memory import UNKNOWN, Here
from sweeper.parts import Parts
from sweeper.paths import StudyFolder
from sweeper.patient import Patience
from sweeper.running import Running
from sweeper.search import StudySpec
from sweeper.space import Space
from sweeper.trial import FIRST, Job, TrialResult, Trouble
from trainers import files
from trainers.config import Epoch, Look
from trainers.crash import point

if TYPE_CHECKING:
    from optuna.trial import Trial


class Study:
    """Makes the jobs of a search space and keeps what became of them. One process at a time holds a study.

    Every write is made so that a kill between any two of them is mended by the next `open`: no trial number is
    used twice, no finished trial is lost, and a trial that was running is handed out again by `next_job`.
    """

    def __init__(self, parts: Parts, cache: Path, held: lock.Lock, patience: Patience) -> None:
        self.patience = patience  # with a database that another program has locked
        self.spec, self.folder = parts.spec, parts.folder
        self._parts, self._cache, self._lock = parts, cache, held
        self._space, self._storage, self._optuna = parts.space, parts.storage, parts.study
        self._clock, self._asking = parts.clock, parts.asking
        self._repeats, self._memory = parts.repeats, parts.memory
        self._running: dict[int, Running] = {}
        self._ends = Ends(parts)
        recovery.recover(parts, self._ends, patience.say)
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
        here: Here = UNKNOWN,
    ) -> "Study":
        """Begin the study in `folder`, or take it up again.

        Raises StudyHeld while another process has it, and UserError, which prints the difference, when the study
        there asks another question, or of data with another `fingerprint`. A new study is told first, by `teach`,
        what it can learn from an earlier one. `here` is what this call trains on.
        """
        held = lock.acquire(folder.lock)
        try:
            record.tidy(folder.root)
            if teach and identity.read(folder) is None:
                teach()
            identity.settle(spec, space, folder, fingerprint)
            with trouble_with(folder.database):
                patience = patience or Patience(folder.database.name)
                return cls(Parts.open(spec, space, folder, patience, here), cache, held, patience)
        except BaseException:
            held.release()
            raise

    def close(self) -> None:
        """Let go of the database and of the study; a full disk costs the time since it was last kept, a second."""
        try:
            if self._lock.there:
                self._parts.kept.settle()
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
        self._ends.lead()

    def _begin(self, trial: "Trial", *, adopted: bool) -> Job:
        folder = self.folder.trial(trial.number)
        job = record.read_config(folder) if adopted else None
        if job is None:
            job = self._memory.begin(self._job(trial))
            record.write_config(folder, job)
            self._repeats.add(job)
        job = job.model_copy(update={"folder": folder.root, "cache": self._cache, "adopted": adopted})
        folder.paused.unlink(missing_ok=True)
        self._ends.left.discard(job.trial)
        self._running[job.trial] = self._parts.stand(trial, job)
        return job

    def refuse(self, job: Job) -> TrialResult | None:
        """End a new trial whose configuration another had no memory for: that is FAILED, too. None for any other."""
        other = self._repeats.hopeless(job.recipe)
        if other is None or self.recorded(job.trial):
            return None
        said = f"the same configuration ran out of memory in trial {other.number}"
        return self._ends.end(self._running.pop(job.trial), "FAILED", "oom", said, gpu_gib=other.gpu_gib)

    def _job(self, trial: "Trial") -> Job:
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
        if epoch.number < len(running.epochs):
            return True
        new = epoch.number == len(running.epochs) + 1
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
        if epoch.number < running.train.epochs and running.job.trial != FIRST:
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
        return epoch.number <= len(epochs) and epochs[epoch.number - 1] != epoch

    def finish(self, trial: int, stopped: bool, tta: Look | None = None) -> TrialResult:
        """Record the end of a trial whose worker is done: COMPLETE, or PRUNED or PAUSED when `report` said so.

        `tta` is the epoch that counts on val with test-time augmentation, if it has that. One stopped for another
        reason is INTERRUPTED: it stays open, and the next sweep goes on with it.
        """
        return self._ends.finish(self._running.pop(trial), stopped=stopped, tta=tta)

    def fail(
        self,
        trial: int,
        trouble: Trouble,
        text: str,
        *,
        crowded: bool = False,
        resident: bool = False,
        gpu_gib: float | None = None,
    ) -> TrialResult:
        """Record that a trial failed.

        INTERRUPTED instead, so still open: on a full disk; and, to be handed out again by `next_job` at once, when
        its worker died or hung for the first time since the trial's last epoch, or ran out of memory `crowded` by
        other trials on its device; when it ran out of memory for the first time: then without the images that were
        `resident` on the GPU, or else in smaller pieces; and when it diverged in fp16: then in 32 bits. That the GPU
        had no room is known of those that are not larger than `gpu_gib` in all.
        """
        one = self._running.pop(trial)
        return self._ends.fail(one, trouble, text, crowded=crowded, resident=resident, gpu_gib=gpu_gib)

    def settle(self) -> list[tuple[Job, TrialResult]]:
        """End as PRUNED what is paused, when nothing runs any more and none may go on; returns what ended.

        Where one only lacks the time to, or a trial was left open, all stay so: more hours go on with them.
        """
        stuck = [] if self._asking.adoptable or self._ends.left else self._asking.waiting.stuck()
        return [(one.job, self._ends.end(one, "PRUNED")) for one in stuck]

    @property
    def best(self) -> TrialResult | None:
        """The leader among the completed trials."""
        return self._ends.best

    def results(self) -> list[TrialResult]:
        """Every trial that was begun, by number, the running ones as they stand."""
        return record.results(self.folder)
