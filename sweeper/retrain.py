"""Training runs that no search decides on: the final and the confirmations. The same handshake, record and views."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sweeper import dataset, identity, launch, lock, overview, pausing, progress, record, sync
from sweeper.ends import IN_FULL
from sweeper.errors import DiskFull, RunFailed, Stopped
from sweeper.executors import Executor
from sweeper.observers import Observers
from sweeper.paths import RunFolder, StudyFolder
from sweeper.room import Room
from sweeper.stop import Stop, listening
from sweeper.trial import Closing, Done, Failed, Job, Observer, Progress, TrialResult
from trainers import files
from trainers.config import Epoch
from trainers.data import images

if TYPE_CHECKING:
    from sweeper.devices import Slot
    from trainers.config import DataConfig
    from trainers.data.layouts import Table

TICK = 0.25  # seconds between two looks at `stop`
PATIENCE, HURRY = 10.0, 1.0  # seconds for observers to take the rest; where the disk is full, or somebody hurries
RETRIES = 1  # of a worker that died or hung
NO_MEMORY = "`sweep doctor` says who holds the GPU's; with more, or on a larger one, the same command continues it"
Made = TypeVar("Made")
Seal = Callable[[Job, Done, list[Epoch]], TrialResult]
"""What is left to do when a run has ended by itself; returns what goes on record."""


@dataclass(frozen=True)
class Session:
    """A study that is held so that runs can be added to it; `table` is its data set."""

    table: "Table"
    observers: Observers
    slots: "Sequence[Slot]"
    stop: Stop
    room: Room

    def train(self, jobs: Sequence[Job], seal: Seal) -> list[TrialResult]:
        """Train `jobs`; raises Stopped when a signal keeps some from ending, and DiskFull as `run` does."""
        from sweeper.executors.local import Local

        ended = run(jobs, Local(self.slots), self.observers, stop=self.stop, seal=seal, room=self.room)
        if self.stop.requested and len(ended) < len(jobs):
            raise Stopped(self.stop.exit_code)
        return ended


def session(
    study: StudyFolder,
    data: "DataConfig",
    slots: "Sequence[Slot]",
    work: Callable[[Session], Made],
    *,
    mlflow: bool = True,
) -> Made:
    """What `work` comes to while `study` is held, with its data checked and decoded, its record in MLflow open, and
    signals heard.

    On a full disk all but the data is let go of, and `work` begins again when there is room. Raises Stopped where a
    person does not wait for that.
    """
    table = dataset.checked(data).table
    identity.same_data(study, images.fingerprint(table), data.root)
    dataset.decode(table, data)
    stop, room = Stop(), Room(study)

    def once() -> Made:
        with _held(study, table, slots, stop, room, mlflow=mlflow) as session:
            return work(session)

    with listening(stop), stop.told():
        made = pausing.through(once, study, stop)
    if made is None:
        raise Stopped(stop.exit_code)
    return made


@contextmanager
def _held(
    study: StudyFolder, table: "Table", slots: "Sequence[Slot]", stop: Stop, room: Room, *, mlflow: bool
) -> Iterator[Session]:
    standing = overview.standing(study)
    held, timeout = lock.acquire(study.lock), PATIENCE
    try:
        view = progress.choose(where=[f"files: {overview.near(study.root)}"])
        observers = launch.observers_for(view, sync.facts(standing), mlflow=mlflow)
        try:
            yield Session(table, observers, slots, stop, room)
        except BaseException as error:
            timeout = HURRY if stop.again or pausing.pauses(error) else PATIENCE
            raise
        finally:
            observers.closed(Closing(standing.state, timeout=timeout))
    finally:
        held.release()


def run(
    jobs: Sequence[Job], executor: Executor, observers: Observer, *, stop: Stop, seal: Seal, room: Room
) -> list[TrialResult]:
    """Train `jobs`, each where its folder left off; returns the ends of those that ended, in no special order.

    On a stop the running ones finish their epoch and stay open for the next call. Raises RunFailed at the first that
    fails, and DiskFull, with what those that ran need, where the disk takes no more, or where the next would not fit;
    afterwards no worker is left.
    """
    runs = _Runs(list(jobs), executor, observers, stop, seal, room)
    try:
        ended = runs.run()
    except BaseException as error:
        executor.close(kill=True)
        if isinstance(error, OSError) and files.full(error):
            raise runs.full(str(error), str(error.filename or room.folder.root)) from error
        raise
    executor.close()
    return ended


@dataclass
class _Runs:
    waiting: list[Job]
    executor: Executor
    observers: Observer
    stop: Stop
    seal: Seal
    room: Room
    running: dict[int, Job] = field(default_factory=dict)
    epochs: dict[int, list[Epoch]] = field(default_factory=dict)
    deaths: dict[Path, int] = field(default_factory=dict)
    ended: list[TrialResult] = field(default_factory=list)
    told: bool = False
    crowded: bool = False  # a run was held back for want of room, and that was said

    def run(self) -> list[TrialResult]:
        while True:
            self.fill()
            if not self.running:
                return self.ended
            message = self.executor.next(TICK)
            if isinstance(message, Progress):
                self.progress(message)
            elif isinstance(message, Done):
                self.done(message)
            elif message:
                self.failed(message)
            self.look()

    def fill(self) -> None:
        """Start what there is room for; of one trial only one run at a time, since messages go by its number."""
        while not self.stop.requested and self.executor.free():
            job = next((job for job in self.waiting if job.trial not in self.running), None)
            if job is None or not self.fits(job):
                return
            self.waiting.remove(job)
            self.start(job)

    def fits(self, job: Job) -> bool:
        """Whether there is room for `job` now. Raises DiskFull where there is not, and nothing runs."""
        fits = self.room.enough(job, self.running.values())
        if not fits and not self.crowded:
            self.crowded = True
            self.observers.note(f"the disk is nearly full: {job.title} begins when there is room, or none runs")
        return fits

    def full(self, why: str, where: str) -> DiskFull:
        """The disk is full, with the bytes that those that run still need."""
        return DiskFull(where, why, self.room.needed(self.running.values()))

    def start(self, job: Job) -> None:
        folder = RunFolder(job.folder)
        if record.read_config(folder) is None:
            record.write_config(folder, job)
        self.running[job.trial], self.epochs[job.trial] = job, record.mend(folder)
        slot = self.executor.start(job)
        self.observers.started(job, slot)

    def progress(self, message: Progress) -> None:
        job, epoch, known = self.running[message.trial], message.epoch, self.epochs[message.trial]
        new = epoch.number == len(known) + 1
        if new:
            record.append(RunFolder(job.folder), epoch)
            known.append(epoch)
        self.room.learn(job)
        self.look()
        stored = epoch.number < len(known)  # it is told again; stopping here would gain nothing
        self.executor.answer(job.trial, keep=stored or not self.stop.requested)
        if new:
            self.observers.epoch(job, epoch, None)

    def done(self, message: Done) -> None:
        job = self.running.pop(message.trial)
        epochs = self.epochs.pop(message.trial)
        if message.stopped and len(epochs) < (job.stop_after or job.recipe.train.epochs):
            self.observers.ended(job, record.standing(job, epochs, "INTERRUPTED"))
            return
        result = self.seal(job, message, epochs)
        record.tidy(job.folder, ended=True)
        record.write_result(RunFolder(job.folder), result)
        self.ended.append(result)
        self.observers.ended(job, result)

    def failed(self, message: Failed) -> None:
        """Once more for a worker that died, without the images on the GPU, and in 32 bits where fp16 diverged;
        otherwise the run stays open, and whoever asked is told.
        """
        if message.trouble == "disk":
            raise self.full(message.text, str(self.running[message.trial].folder))
        job = self.running.pop(message.trial)
        epochs = self.epochs.pop(message.trial)
        deaths = self.deaths[job.folder] = self.deaths.get(job.folder, 0) + 1
        if message.trouble in ("died", "hung") and deaths <= RETRIES:
            self.observers.note(f"{job.title}: {message.text}; trying once more")
            self.waiting.insert(0, job)
            return
        if change := _remedy(job, message):
            remedy, update = change
            self.observers.note(f"{job.title}: {message.text}; {remedy}")
            job = job.model_copy(update=update)
            record.write_config(RunFolder(job.folder), job)
            self.waiting.insert(0, job)
            return
        result = record.standing(job, epochs, "FAILED", trouble=message.trouble, error=message.text)
        self.observers.ended(job, result)
        log = str(RunFolder(job.folder).log)
        if message.trouble == "oom":
            raise RunFailed(f"{job.title} ran out of memory: {message.text}", where=log, help=NO_MEMORY)
        raise RunFailed(f"{job.title} failed: {message.text}", where=log, help="the same command continues it")

    def look(self) -> None:
        if self.stop.requested and not self.told:
            self.told = True
            self.observers.note("finishing the epoch; press again to stop now")


def _remedy(job: Job, message: Failed) -> tuple[str, dict[str, bool]] | None:
    """In words, and as a change of the job, what may let a run that failed go on."""
    if message.trouble == "oom" and message.resident:
        return "trying once more with the images in the host's memory", {"resident": False}
    if message.trouble == "overflow" and not job.full_precision:
        return IN_FULL, {"full_precision": True}
    return None
