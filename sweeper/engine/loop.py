"""The loop: runs a source's jobs on an executor and reports to the source and the observers. It decides nothing."""

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

POLL_INTERVAL_S = 0.25  # between two checks of `stop`
NO_SLOT_NOTICE_S = 15.0  # without a slot to train on, before it is reported


class JobSource(Protocol):
    """Provides jobs and records their outcomes: a study's search, or its retraining."""

    @property
    def folder(self) -> StudyFolder: ...

    def next_job(self) -> Job | None:
        """Return the next job, of a trial that is not running already; None while there is none."""
        ...

    def refuse(self, job: Job) -> TrialResult | None:
        """Return the outcome of a job that need not be trained; None for any other job."""
        ...

    def starting(self, job: Job) -> None:
        """Called when there is room for the job and a worker is about to take it: config.json must exist by then."""
        ...

    def epochs(self, key: str) -> Sequence[Epoch]:
        """Return the recorded epochs of a running job."""
        ...

    def report(self, key: str, epoch: Epoch) -> bool:
        """Record an epoch of a running job, once; return True if it continues."""
        ...

    def finish(self, message: Done | Failed) -> TrialResult:
        """Record the outcome of a run; INTERRUPTED if `next_job` will return it again."""
        ...

    def settle(self) -> list[tuple[Job, TrialResult]]:
        """Close the trials that still wait once nothing is running; return them with their outcomes."""
        ...

    def tick(self) -> None:
        """Called at least every POLL_INTERVAL_S; raises EnvironmentFault if the folders are gone."""
        ...

    @property
    def best(self) -> TrialResult | None: ...

    @property
    def over(self) -> SessionEnd | None:
        """The reason to stop early even if jobs remain; None to continue."""
        ...

    @property
    def outcome(self) -> SessionEnd:
        """The outcome once nothing is left to do."""
        ...


def run(
    source: JobSource, executor: Executor, observers: Observer, *, stop: Stop, room: "DiskEstimate | None" = None
) -> SessionEnd:
    """Train until nothing is left or `stop` is requested; all workers have ended when this returns.

    A stop lets every run finish its epoch; KeyboardInterrupt during a stop kills the workers. Either way the runs
    stay open for the next session. Raises DiskFull, with the space that the unfinished runs need, if the disk is full
    or the next job would not fit; the runs stay open then, too.
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
    jobs: dict[str, Job] = field(default_factory=dict)  # running jobs, by key
    continued: set[str] = field(default_factory=set)  # keys of those that started from a checkpoint
    held: Job | None = None  # the next job, held back until there is disk space or a slot
    since: float | None = None  # start of the wait for a slot
    ended: SessionEnd | None = None  # set once nothing may start or continue

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
        """Start a job on every free slot while there are jobs, and disk space for their files."""
        while self.ended is None and self.executor.free() and (job := self.next_job()):
            if not self.fits(job):
                return
            self.jobs[job.key], self.since = job, None
            if any(path.exists() for path in RunFolder(job.folder).checkpoints):
                self.continued.add(job.key)
            self.source.starting(job)
            slot = self.executor.start(job)
            self.observers.started(job, slot)

    def next_job(self) -> Job | None:
        """Return the job held back, or the source's next one; report refused jobs to the observers."""
        while not self.held and (job := self.source.next_job()):
            result = self.source.refuse(job)
            if result is None:
                return job
            self.observers.started(job, "")
            self.observers.ended(job, result)
        return self.held

    def fits(self, job: Job) -> bool:
        """True if there is disk space for `job` now; otherwise hold it back."""
        held = self.held
        self.held = None if self.room is None or self.room.enough(job, self.jobs.values()) else job
        if self.held and not held:
            what = f"{job.label} waits for free space or for the running trials to finish"
            self.observers.note(f"disk nearly full: {what}")
        return self.held is None

    def stranded(self) -> bool:
        """True if a job waits for a slot; the slots of a cluster come and go."""
        self.held = None if self.ended else self.next_job()
        if self.held is None:
            return False
        now = time.monotonic()
        self.since = self.since or now
        if now - self.since > NO_SLOT_NOTICE_S:
            self.observers.note("no slot to train on; waiting for one")
            self.since = float("inf")  # reported once
        return True

    def close(self) -> SessionEnd:
        """Close the trials that still wait, unless something else ended the loop; return how the session ended."""
        self.ended = self.ended or self.source.over
        for job, result in self.source.settle() if self.ended is None else ():
            self.observers.ended(job, result)
        return self.ended or self.source.outcome

    # ------------------------------------------------------------------------------------ listening
    def progress(self, message: Progress) -> None:
        """Record an epoch and answer the worker, which trains on while the observers are notified."""
        job, epoch = self.jobs[message.key], message.epoch
        known = self.source.epochs(job.key)
        new = epoch.number > len(known)
        if self.room:
            self.room.learn(job, epoch.number)
        if job.key in self.continued and epoch.number == 1 and known and known[0] != epoch:  # it was trained again
            self.observers.note(f"{job.label} restarts from scratch: its checkpoint is unusable (see log.txt)")
        keep = self.source.report(job.key, epoch)
        self.look()
        self.executor.answer(job.key, keep and self.ended is None)
        if new:
            self.observers.epoch(job, epoch, self.source.best)

    def end(self, message: Done | Failed) -> None:
        """Record the outcome of a run."""
        job = self.jobs.pop(message.key)
        result = self.source.finish(message)
        self.observers.ended(job, result)
        if result.failure == "disk":
            self.jobs[job.key] = job  # the space it needs must be free before it resumes
            raise DiskFull(str(self.source.folder.root), str(result.error))
        if result.state == "INTERRUPTED" and result.error:
            self.observers.note(f"{job.label}: {result.error}")
        self.ended = self.ended or self.source.over

    def look(self) -> None:
        """Act on a signal received meanwhile."""
        if self.stop.requested and (self.ended is None or self.ended.exit_code != self.stop.exit_code):
            self.ended = SessionEnd(self.stop.exit_code, "stopped")
            self.observers.note("finishing the epoch; press again to stop now")

    def full(self, why: str, where: str) -> DiskFull:
        """Return a DiskFull with the bytes that the running jobs still need."""
        return DiskFull(where, why, self.room.needed(self.jobs.values()) if self.room else 0)
