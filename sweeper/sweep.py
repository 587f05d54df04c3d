"""The loop: asks the study, has the executor train, tells the study and the observers. It decides nothing."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeper.errors import DiskFull, NoResult
from sweeper.executors import Executor
from sweeper.stop import Stop
from sweeper.study import Study
from sweeper.trial import OPEN, Done, Failed, Job, Observer, Progress, TrialResult
from trainers import files

if TYPE_CHECKING:
    from sweeper.room import Room

TICK = 0.25  # seconds between two looks at `stop`
PATIENCE = 15.0  # seconds without a place to train at, before it is said
HOPELESS = 5  # trials that fail alike, none ever having completed, end a sweep
REFUSED = 20  # proposals in a row that are refused, with nothing else to do, end a sweep


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: the exit code, and one line that says why where that is not plain."""

    exit_code: int = 0
    reason: str = ""


def run(study: Study, executor: Executor, observers: Observer, *, stop: Stop, room: "Room | None" = None) -> Outcome:
    """Train until the budget is used up or `stop` is requested; afterwards no worker is left.

    A stop lets every running trial finish its epoch; KeyboardInterrupt during a stop kills the workers. Either way
    the trials stay open for the next sweep. Raises DiskFull, with what the trials that ran need, where the disk takes
    no more, or where the next trial would not fit: then, too, they stay open.
    """
    sweep = _Sweep(study, executor, observers, stop, room)
    try:
        outcome = sweep.run()
    except BaseException as error:
        executor.close(kill=True)
        if isinstance(error, KeyboardInterrupt) and stop.requested:
            return Outcome(stop.exit_code, "stopped at once")
        if isinstance(error, OSError) and files.full(error):
            raise sweep.full(str(error), str(error.filename or study.folder.root)) from error
        if isinstance(error, DiskFull) and not error.need:
            raise sweep.full(error.why, error.where) from error
        raise
    executor.close()
    return outcome


@dataclass
class _Sweep:
    """The loop's variables: the jobs that run, and the trials that failed alike with none in between."""

    study: Study
    executor: Executor
    observers: Observer
    stop: Stop
    room: "Room | None" = None
    jobs: dict[int, Job] = field(default_factory=dict)
    alike: list[TrialResult] = field(default_factory=list)
    next: Job | None = None  # begun, and held back for want of room on the disk, or of a place
    waiting: float | None = None  # for a place, since when
    ended: Outcome | None = None  # set when no trial may begin or go on
    refused: int = 0  # proposals, since a trial was trained
    told: bool = False  # that a stop is under way

    def run(self) -> Outcome:
        while True:
            self.fill()
            if not self.jobs and not self.stranded():
                self.settle()
                return self.outcome()
            message = self.executor.next(TICK)
            self.study.tick()
            if isinstance(message, Progress):
                self.progress(message)
            elif message:
                self.end(message)
            self.look()

    def stranded(self) -> bool:
        """Whether a trial waits for a place to train at: those of a cluster come and go."""
        if self.ended or not (job := self.next or self.next_job()):
            return False
        self.next = job
        now = time.monotonic()
        self.waiting = self.waiting or now
        if now - self.waiting > PATIENCE:
            self.observers.note("there is no place to train at; waiting for one")
            self.waiting = float("inf")  # said once
        return True

    def fill(self) -> None:
        """Give every free slot a job, as long as there are some, and room for what they put down."""
        while self.ended is None and self.executor.free() and (job := self.next or self.next_job()):
            if not self.fits(job):
                return
            self.jobs[job.trial], self.waiting = job, None
            slot = self.executor.start(job)
            self.observers.started(job, slot)
        if self.refused >= REFUSED and not self.jobs:
            reason = f"the last {REFUSED} proposals are known to have no memory; a smaller image_size may"
            self.ended = Outcome(0 if self.study.best else NoResult.exit_code, reason)

    def next_job(self) -> Job | None:
        """What to train next; what is refused goes on record at once."""
        while self.refused < REFUSED and (job := self.study.next_job()):
            result = self.study.refuse(job)
            if result is None:
                return job
            self.refused += 1
            self.tell(job, result)
        return None

    def fits(self, job: Job) -> bool:
        """Whether there is room for `job` now; it is held back where there is not."""
        held = self.next
        self.next = None if self.room is None or self.room.enough(job, self.jobs.values()) else job
        if self.next and not held:
            self.observers.note(f"the disk is nearly full: trial {job.trial} begins when there is room, or none runs")
        return self.next is None

    def full(self, why: str, where: str) -> DiskFull:
        """The disk is full, with the bytes that those that run still need."""
        return DiskFull(where, why, self.room.needed(self.jobs.values()) if self.room else 0)

    def progress(self, message: Progress) -> None:
        """Record an epoch and answer; the worker trains on while observers are told."""
        job, epoch = self.jobs[message.trial], message.epoch
        new = epoch.number > self.study.recorded(job.trial)
        if self.room:
            self.room.learn(job)
        if epoch.number == 1 and self.study.anew(job.trial, epoch):
            self.observers.note(
                f"trial {job.trial} begins anew: its checkpoint could not be used, as its log.txt says"
            )
        keep = self.study.report(job.trial, epoch)
        self.look()
        self.executor.answer(job.trial, keep and self.ended is None)
        if new:
            self.observers.epoch(job, epoch, self.study.best)

    def end(self, message: Done | Failed) -> None:
        """Record the end of a trial."""
        job = self.jobs.pop(message.trial)
        if isinstance(message, Done):
            result = self.study.finish(job.trial, message.stopped, message.tta)
        else:
            result = self.study.fail(
                job.trial,
                message.trouble,
                message.text,
                crowded=message.crowded,
                resident=message.resident,
                gpu_gib=message.gpu_gib,
            )
        self.refused = 0
        self.tell(job, result)
        if result.state == "INTERRUPTED" and result.error:
            self.observers.note(f"t{job.trial:04d}: {result.error}")
        self.judge(result)

    def tell(self, job: Job, result: TrialResult) -> None:
        self.observers.ended(job, result)
        if result.trouble == "disk":
            self.jobs[job.trial] = job  # what it needs is to be free before it goes on

    def settle(self) -> None:
        """End what is paused for good."""
        for job, result in self.study.settle() if self.ended is None else ():
            self.tell(job, result)

    def judge(self, result: TrialResult) -> None:
        """End the sweep where to go on would only burn the budget."""
        if result.trouble == "disk":
            raise DiskFull(str(self.study.folder.root), str(result.error))
        if result.state in OPEN:
            return
        same = result.state == "FAILED" and all(_alike(result, other) for other in self.alike)
        self.alike = [*self.alike, result] if same else [result] * (result.state == "FAILED")
        if len(self.alike) >= HOPELESS and self.study.best is None:
            self.ended = Outcome(NoResult.exit_code, f"{HOPELESS} trials in a row failed alike: {result.error}")

    def look(self) -> None:
        """Heed a signal that came meanwhile."""
        if self.stop.requested and not self.told:
            self.told = True
            self.ended = Outcome(self.stop.exit_code, "stopped")
            self.observers.note("finishing the epoch; press again to stop now")

    def outcome(self) -> Outcome:
        if self.ended:
            return self.ended
        if self.study.best:
            return Outcome(reason=self.study.reason)
        words = ["no trial completed", *([self.study.reason] if self.study.reason else [])]
        return Outcome(NoResult.exit_code, "; ".join(words))


def _alike(one: TrialResult, other: TrialResult) -> bool:
    """Whether both failed for the same reason; of memory torch never says the same twice."""
    return one.error == other.error or one.trouble == other.trouble == "oom"
