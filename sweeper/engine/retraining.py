"""Training runs that no search decides on: the final and the confirmations. The same handshake, record and views."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sweeper import text
from sweeper.engine import disk_pause, loop, prepare
from sweeper.engine import session as engine_session
from sweeper.engine.disk_space import DiskEstimate
from sweeper.engine.observers import Observers
from sweeper.errors import RunFailed, Stopped
from sweeper.executors.local import Local
from sweeper.store import extension_files, lock, records, studies, study_file
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.study.outcomes import IN_FULL
from sweeper.system.signals import Stop, listening
from sweeper.terminal.output import print_message
from sweeper.tracking import tracker
from sweeper.trial import Closing, Done, Failed, Job, SessionEnd, TrialResult
from trainers import extensions
from trainers.data import images
from trainers.epoch import Epoch
from trainers.support.threads import checkpoint_interval

if TYPE_CHECKING:
    from sweeper.system.devices import Slot
    from trainers.config import Recipe
    from trainers.data.layouts import Table

PATIENCE, HURRY = 10.0, 1.0  # seconds for observers to take the rest; where the disk is full, or somebody hurries
RETRIES = 1  # of a worker that died or hung
NO_MEMORY = "`sweep doctor` says who holds the GPU's; with more, or on a larger one, the same command continues it"
Made = TypeVar("Made")
MakeResult = Callable[[Job, Done, list[Epoch]], TrialResult]
"""What is left to do when a run has ended by itself; returns what goes on record."""


@dataclass(frozen=True)
class RetrainingSession:
    """A study that is held so that runs can be added to it; `table` is its data set."""

    table: "Table"
    observers: Observers
    slots: "Sequence[Slot]"
    stop: Stop
    room: DiskEstimate

    def train(self, jobs: Sequence[Job], make_result: MakeResult) -> list[TrialResult]:
        """Train `jobs`; raises Stopped when a signal keeps some from ending, and DiskFull as `run` does."""
        source = Retraining(self.room.folder, jobs, make_result)
        loop.run(source, Local(self.slots), self.observers, stop=self.stop, room=self.room)
        if source.failure:
            raise source.failure
        if len(source.ended) < len(jobs):
            raise Stopped(self.stop.exit_code)
        return source.ended


def session(
    study: StudyFolder,
    recipe: "Recipe",
    slots: "Sequence[Slot]",
    work: Callable[[RetrainingSession], Made],
    *,
    spent_on: Sequence[RunFolder] = (),
    mlflow: bool = True,
    events: bool = False,
) -> Made:
    """What `work` comes to while `study` is held, with its data checked and decoded, its record in MLflow open, and
    signals heard. `events`: what happens is told as JSON. `spent_on`: runs that share the seconds until `work` ends,
    however it ends; what observers still show then is no part of them.

    On a full disk all but the data is let go of, and `work` begins again when there is room. Raises Stopped where a
    person does not wait for that.
    """
    checkpoint_interval()  # refuses what is no number
    began = [time.monotonic()]
    extensions.use(extensions.stored(study.extensions, recipe.extensions))
    data = recipe.data
    table = prepare.checked(data).table
    study_file.same_data(study, images.fingerprint(table), data.root)
    prepare.decode(table, data, recipe.train.framing)
    stop, room = Stop(), DiskEstimate(study)

    def once() -> Made:
        start = began.pop() if began else time.monotonic()  # after a full disk without the waiting
        with _held(study, table, slots, stop, room, mlflow=mlflow, events=events) as session:
            try:
                return work(session)
            finally:
                for folder in spent_on:
                    records.add_final_seconds(folder, (time.monotonic() - start) / len(spent_on))

    with listening(stop), stop.told():
        made = disk_pause.retry_when_disk_full(once, study, stop)
    if made is None:
        raise Stopped(stop.exit_code)
    return made


@contextmanager
def _held(
    study: StudyFolder,
    table: "Table",
    slots: "Sequence[Slot]",
    stop: Stop,
    room: DiskEstimate,
    *,
    mlflow: bool,
    events: bool,
) -> Iterator[RetrainingSession]:
    standing = studies.status_of(study)
    held, timeout = lock.acquire(study.lock), PATIENCE
    try:
        facts = tracker.facts(standing)
        where = [f"files: {text.relative_path(study.root)}"]
        found = engine_session.speakers(study, facts.names, where, events=events)
        observers = engine_session.observers_for(Observers(found, print_message), facts, mlflow=mlflow)
        try:
            yield RetrainingSession(table, observers, slots, stop, room)
        except BaseException as error:
            timeout = HURRY if stop.again or disk_pause.is_disk_full(error) else PATIENCE
            raise
        finally:
            observers.closed(Closing(standing.state, timeout=timeout))
    finally:
        held.release()


class Retraining:
    """A source of jobs that are known beforehand, each of which goes on where its folder left off.

    `make_result` says what goes on record at the end of one. The first that fails for good ends the session.
    """

    def __init__(self, folder: StudyFolder, jobs: Sequence[Job], make_result: MakeResult) -> None:
        self.folder, self._waiting, self._make_result = folder, list(jobs), make_result
        self._running: dict[int, _Run] = {}
        self._deaths: Counter[Path] = Counter()
        self.ended: list[TrialResult] = []  # those that came to their end
        self.failure: RunFailed | None = None

    def next_job(self) -> Job | None:
        """One of another trial than those that run, since messages go by its number."""
        job = next((job for job in self._waiting if job.trial not in self._running), None)
        if job is None:
            return None
        self._waiting.remove(job)
        folder = RunFolder(job.folder)
        epochs = records.repair(folder)
        self._running[job.trial] = _Run(job, folder, epochs)
        return job.model_copy(update={"recorded": tuple(epochs)})

    def refuse(self, _job: Job) -> None:
        """All are trained."""

    def starting(self, job: Job) -> None:
        begin(job)

    def epochs(self, trial: int) -> Sequence[Epoch]:
        return self._running[trial].epochs

    def report(self, trial: int, epoch: Epoch) -> bool:
        run = self._running[trial]
        if epoch.number == len(run.epochs) + 1:
            records.append(run.folder, epoch)
            run.epochs.append(epoch)
        return True

    def finish(self, message: Done | Failed) -> TrialResult:
        """COMPLETE, INTERRUPTED when it was stopped or is tried again, or FAILED; then it stays open all the same."""
        run = self._running.pop(message.trial)
        if isinstance(message, Failed):
            return self._failed(run, message)
        if message.stopped:
            return records.result_of(run.job, run.epochs, "INTERRUPTED")
        result = self._make_result(run.job, message, run.epochs)
        records.remove_leftovers(run.folder.root, ended=True)
        records.write_result(run.folder, result)
        self.ended.append(result)
        return result

    def _failed(self, run: "_Run", message: Failed) -> TrialResult:
        """Once more for a worker that died, without the images on the GPU, and in 32 bits where fp16 diverged."""
        if message.failure == "disk":
            return records.result_of(run.job, run.epochs, "INTERRUPTED", message)
        self._deaths[run.folder.root] += 1
        if message.failure in ("died", "hung") and self._deaths[run.folder.root] <= RETRIES:
            return self._again(run, run.job, message, "trying once more")
        if change := _remedy(run.job, message):
            remedy, update = change
            job = run.job.model_copy(update=update)
            records.write_config(run.folder, job)
            return self._again(run, job, message, remedy)
        self.failure = _failure(run, message)
        return records.result_of(run.job, run.epochs, "FAILED", message)

    def _again(self, run: "_Run", job: Job, message: Failed, how: str) -> TrialResult:
        self._waiting.insert(0, job)
        told = message.model_copy(update={"text": f"{message.text}; {how}"})
        return records.result_of(run.job, run.epochs, "INTERRUPTED", told)

    def settle(self) -> list[tuple[Job, TrialResult]]:
        """Nothing waits here."""
        return []

    def tick(self) -> None:
        records.refuse_gone(run.folder.root for run in self._running.values())

    best: TrialResult | None = None  # there is none to compare with

    @property
    def over(self) -> SessionEnd | None:
        return SessionEnd(RunFailed.exit_code, str(self.failure)) if self.failure else None

    @property
    def outcome(self) -> SessionEnd:
        return SessionEnd()


@dataclass(frozen=True)
class _Run:
    """A run under way, with its epochs on record."""

    job: Job
    folder: RunFolder
    epochs: list[Epoch]


def begin(job: Job) -> None:
    """Put a run on record that is not there yet."""
    folder = RunFolder(job.folder)
    if records.read_config(folder) is None:
        if job.kind == "final":
            extension_files.carry(job.recipe.extensions, folder.study.extensions, folder.root / "extensions")
        records.write_config(folder, job)


def _failure(run: _Run, message: Failed) -> RunFailed:
    title, log = run.job.title, str(run.folder.log)
    if message.failure == "oom":
        return RunFailed(f"{title} ran out of memory: {message.text}", where=log, help=NO_MEMORY)
    return RunFailed(f"{title} failed: {message.text}", where=log, help="the same command continues it")


def _remedy(job: Job, message: Failed) -> tuple[str, dict[str, bool]] | None:
    """In words, and as a change of the job, what may let a run that failed go on."""
    if message.failure == "oom" and message.resident:
        return "trying once more with the images in the host's memory", {"resident": False}
    if message.failure == "overflow" and not job.full_precision:
        return IN_FULL, {"full_precision": True}
    return None
