"""Training runs outside the search: retrainings and confirmations. Handshake, record and views are the same."""

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

PATIENCE, HURRY = 10.0, 1.0  # seconds for observers to finish: normally, and in a hurry
RETRIES = 1  # after a worker died or hung
NO_MEMORY = (
    "`sweep doctor` shows what is using GPU memory; free some or use a larger GPU, then run the same command to"
    " continue"
)
Made = TypeVar("Made")
MakeResult = Callable[[Job, Done, list[Epoch]], TrialResult]
"""The work left when a run has finished by itself; returns the result to record."""


@dataclass(frozen=True)
class RetrainingSession:
    """A study held so that runs can be added to it; `table` is its data set."""

    table: "Table"
    observers: Observers
    slots: "Sequence[Slot]"
    stop: Stop
    room: DiskEstimate

    def train(self, jobs: Sequence[Job], make_result: MakeResult) -> list[TrialResult]:
        """Train `jobs`. Raises RunFailed if one fails, Stopped if a signal keeps some from starting or finishing, and
        DiskFull as `loop.run` does.
        """
        if self.stop.requested:
            raise Stopped(self.stop.exit_code)
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
    """Return the result of `work`, run while `study` is held: its data checked and decoded, its MLflow run open, and
    signals handled. With `events`, events are logged as JSON. The runs that are in `spent_on` when `work` ends,
    however it ends, share its seconds; the time that observers still need afterwards is not counted.

    On a full disk everything but the data is released, and `work` starts again when there is room. Raises Stopped if
    the user does not wait for that.
    """
    checkpoint_interval()  # raises if it is not a number
    began = [time.monotonic()]
    extensions.use(extensions.stored(study.extensions, recipe.extensions))
    data = recipe.data
    table = prepare.checked(data, study).table
    study_file.same_data(study, images.fingerprint(table), data.root)
    prepare.decode(table, data, recipe.train.framing)
    stop, room = Stop(), DiskEstimate(study)

    def once() -> Made:
        start = began.pop() if began else time.monotonic()  # the wait after a full disk does not count
        with _held(study, table, slots, stop, room, mlflow=mlflow, events=events) as session:
            try:
                return work(session)
            finally:
                for folder in spent_on:
                    records.add_final_seconds(folder, (time.monotonic() - start) / len(spent_on))

    with listening(stop), stop.explained():
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
    """A source of jobs that are known in advance, each of which resumes from its folder.

    `make_result` makes the result to record when one finishes. The first permanent failure ends the session.
    """

    def __init__(self, folder: StudyFolder, jobs: Sequence[Job], make_result: MakeResult) -> None:
        self.folder, self._waiting, self._make_result = folder, list(jobs), make_result
        self._running: dict[str, _Run] = {}
        self._deaths: Counter[Path] = Counter()
        self.ended: list[TrialResult] = []  # those that finished
        self.failure: RunFailed | None = None

    def next_job(self) -> Job | None:
        if not self._waiting:
            return None
        job = self._waiting.pop(0)
        folder = RunFolder(job.folder)
        epochs = records.repair(folder)
        self._running[job.key] = _Run(job, folder, epochs)
        return job.model_copy(update={"recorded": tuple(epochs)})

    def refuse(self, _job: Job) -> None:
        """Refuse none: all jobs are trained."""

    def starting(self, job: Job) -> None:
        begin(job)

    def epochs(self, key: str) -> Sequence[Epoch]:
        return self._running[key].epochs

    def report(self, key: str, epoch: Epoch) -> bool:
        run = self._running[key]
        if epoch.number == len(run.epochs) + 1:
            records.append(run.folder, epoch)
            run.epochs.append(epoch)
        return True

    def finish(self, message: Done | Failed) -> TrialResult:
        """Return the run's result: COMPLETE; INTERRUPTED if stopped or retried; FAILED, which stays open as well."""
        run = self._running.pop(message.key)
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
        """Retry once if the worker died or hung, without the images on the GPU if memory ran out, or in 32 bits if
        fp16 diverged; otherwise record the failure.
        """
        if message.failure == "disk":
            return records.result_of(run.job, run.epochs, "INTERRUPTED", message)
        if message.failure in ("died", "hung"):
            self._deaths[run.folder.root] += 1
            if self._deaths[run.folder.root] <= RETRIES:
                return self._again(run, run.job, message, "retrying")
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
        """Return nothing: no run waits here."""
        return []

    def tick(self) -> None:
        records.refuse_gone(run.folder.root for run in self._running.values())

    best: TrialResult | None = None  # these runs are not compared

    @property
    def over(self) -> SessionEnd | None:
        return SessionEnd(RunFailed.exit_code, str(self.failure)) if self.failure else None

    @property
    def outcome(self) -> SessionEnd:
        return SessionEnd()


@dataclass(frozen=True)
class _Run:
    """A running job with its recorded epochs."""

    job: Job
    folder: RunFolder
    epochs: list[Epoch]


def begin(job: Job) -> None:
    """Record the start of a run, unless it is on record already."""
    folder = RunFolder(job.folder)
    if records.read_config(folder) is None:
        if job.kind == "final":
            extension_files.carry(job.recipe.extensions, folder.study.extensions, folder.root / "extensions")
        records.write_config(folder, job)


def _failure(run: _Run, message: Failed) -> RunFailed:
    title, log = run.job.label, str(run.folder.log)
    if message.failure == "oom":
        return RunFailed(f"{title} ran out of memory: {message.text}", where=log, help=NO_MEMORY)
    return RunFailed(f"{title} failed: {message.text}", where=log, help="the same command continues it")


def _remedy(job: Job, message: Failed) -> tuple[str, dict[str, bool]] | None:
    """Return what may let a failed run continue, in words and as changes to the job; None if nothing may."""
    if message.failure == "oom" and message.resident:
        return "retrying with the images in host memory", {"resident": False}
    if message.failure == "overflow" and not job.full_precision:
        return IN_FULL, {"full_precision": True}
    return None
