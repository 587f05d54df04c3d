"""The loop: has an executor train a source's jobs, and tells source and observers. It decides nothing."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sweeper.errors import DiskFull
from sweeper.executors import Executor
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.system.signals import Stop
from sweeper.trial import Done, Failed, Job, Observer, Progress, SessionEnd, TrialResult
from trainers.epoch import Epoch
from trainers.support import files

if TYPE_CHECKING:
    from sweeper.engine.disk_space import DiskEstimate

POLL_INTERVAL_S = 0.25  # between two looks at `stop`
NO_SLOT_NOTICE_S = 15.0  # without a place to train at, before it is said


class JobSource(Protocol):
    """Where jobs come from, and who puts on record what becomes of them: a study's search, or its retraining."""

    @property
    def folder(self) -> StudyFolder: ...

    def next_job(self) -> Job | None:
        """What to train next, none of whose trial runs already; None while there is nothing."""
        ...

    def refuse(self, job: Job) -> TrialResult | None:
        """The end of a job that need not be trained; None for any other."""
        ...

    def starting(self, job: Job) -> None:
        """There is room for the job, and a worker is to take it: its config.json has to be there now."""
        ...

    def epochs(self, trial: int) -> Sequence[Epoch]:
        """The epochs on record of a running trial."""
        ...

    def report(self, trial: int, epoch: Epoch) -> bool:
        """Put an epoch on record, once; whether the trial goes on."""
        ...

    def finish(self, message: Done | Failed) -> TrialResult:
        """Put on record how a run ended; INTERRUPTED where `next_job` hands it out again."""
        ...

    def settle(self) -> list[tuple[Job, TrialResult]]:
        """End for good what waits, when nothing runs any more; returns what ended."""
        ...

    def tick(self) -> None:
        """Called every POLL_INTERVAL_S or sooner; raises EnvironmentFault when the folders are gone."""
        ...

    @property
    def best(self) -> TrialResult | None: ...

    @property
    def over(self) -> SessionEnd | None:
        """Why nothing more may run, though there may be jobs."""
        ...

    @property
    def outcome(self) -> SessionEnd:
        """How it ended when nothing is left to do."""
        ...


def run(
    source: JobSource, executor: Executor, observers: Observer, *, stop: Stop, room: "DiskEstimate | None" = None
) -> SessionEnd:
    """Train until nothing is left or `stop` is requested; afterwards no worker is left.

    A stop lets every run finish its epoch; KeyboardInterrupt during a stop kills the workers. Either way the runs
    stay open for the next session. Raises DiskFull, with what those that ran need, where the disk takes no more, or
    where the next would not fit: then, too, they stay open.
    """
    loop = _Loop(source, executor, observers, stop, room)
    try:
        outcome = loop.run()
    except BaseException as error:
        executor.close(kill=True)
        if isinstance(error, KeyboardInterrupt) and stop.requested:
            return SessionEnd(stop.exit_code, "stopped at once")
        if isinstance(error, OSError) and files.full(error):
            raise loop.full(str(error), str(error.filename or source.folder.root)) from error
        if isinstance(error, DiskFull) and not error.need:
            raise loop.full(error.why, error.where) from error
        raise
    executor.close()
    return outcome


@dataclass
class _Loop:
    """The loop and its state."""

    source: JobSource
    executor: Executor
    observers: Observer
    stop: Stop
    room: "DiskEstimate | None" = None
    jobs: dict[int, Job] = field(default_factory=dict)  # that run, by trial
    continued: set[int] = field(default_factory=set)  # trials that began with a checkpoint
    held: Job | None = None  # the next, for want of disk space, or of a slot
    since: float | None = None  # when the waiting for a slot began
    ended: SessionEnd | None = None  # set when nothing may start or go on

    def run(self) -> SessionEnd:
        while True:
            self.fill()
            if not self.jobs and not self.stranded():
                return self.close()
            message = self.executor.next(POLL_INTERVAL_S)
            self.observers.moved(self.executor.positions())
            self.source.tick()
            if isinstance(message, Progress):
                self.progress(message)
            elif message:
                self.end(message)
            self.look()

    # ------------------------------------------------------------------------------------ starting
    def fill(self) -> None:
        """Give every free slot a job, as long as there are some, and disk space for what they write."""
        while self.ended is None and self.executor.free() and (job := self.next_job()):
            if not self.fits(job):
                return
            self.jobs[job.trial], self.since = job, None
            if any(path.exists() for path in RunFolder(job.folder).checkpoints):
                self.continued.add(job.trial)
            self.source.starting(job)
            slot = self.executor.start(job)
            self.observers.started(job, slot)

    def next_job(self) -> Job | None:
        """The job held back, or the source's next; what is refused is told at once."""
        while not self.held and (job := self.source.next_job()):
            result = self.source.refuse(job)
            if result is None:
                return job
            self.observers.started(job, "")
            self.observers.ended(job, result)
        return self.held

    def fits(self, job: Job) -> bool:
        """Whether there is disk space for `job` now; it is held back where there is not."""
        held = self.held
        self.held = None if self.room is None or self.room.enough(job, self.jobs.values()) else job
        if self.held and not held:
            what = f"{job.label} waits for free space or for the running trials to finish"
            self.observers.note(f"disk nearly full: {what}")
        return self.held is None

    def stranded(self) -> bool:
        """Whether a job waits for a slot: those of a cluster come and go."""
        self.held = None if self.ended else self.next_job()
        if self.held is None:
            return False
        now = time.monotonic()
        self.since = self.since or now
        if now - self.since > NO_SLOT_NOTICE_S:
            self.observers.note("there is no place to train at; waiting for one")
            self.since = float("inf")  # said once
        return True

    def close(self) -> SessionEnd:
        """End for good what still waits, where nothing else ended the loop."""
        self.ended = self.ended or self.source.over
        for job, result in self.source.settle() if self.ended is None else ():
            self.observers.ended(job, result)
        return self.ended or self.source.outcome

    # ------------------------------------------------------------------------------------ listening
    def progress(self, message: Progress) -> None:
        """Record an epoch and answer; the worker trains on while observers are told."""
        job, epoch = self.jobs[message.trial], message.epoch
        known = self.source.epochs(job.trial)
        new = epoch.number > len(known)
        if self.room:
            self.room.learn(job, epoch.number)
        if job.trial in self.continued and epoch.number == 1 and known and known[0] != epoch:  # it was trained again
            self.observers.note(f"{job.label} restarts from scratch: its checkpoint is unusable (see log.txt)")
        keep = self.source.report(job.trial, epoch)
        self.look()
        self.executor.answer(job.trial, keep and self.ended is None)
        if new:
            self.observers.epoch(job, epoch, self.source.best)

    def end(self, message: Done | Failed) -> None:
        """Record the end of a run."""
        job = self.jobs.pop(message.trial)
        result = self.source.finish(message)
        self.observers.ended(job, result)
        if result.failure == "disk":
            self.jobs[job.trial] = job  # what it needs is to be free before it goes on
            raise DiskFull(str(self.source.folder.root), str(result.error))
        if result.state == "INTERRUPTED" and result.error:
            self.observers.note(f"{job.label}: {result.error}")
        self.ended = self.ended or self.source.over

    def look(self) -> None:
        """Heed a signal that came meanwhile."""
        if self.stop.requested and (self.ended is None or self.ended.exit_code != self.stop.exit_code):
            self.ended = SessionEnd(self.stop.exit_code, "stopped")
            self.observers.note("finishing the epoch; press again to stop now")

    def full(self, why: str, where: str) -> DiskFull:
        """The disk is full, with the bytes that those that run still need."""
        return DiskFull(where, why, self.room.needed(self.jobs.values()) if self.room else 0)
