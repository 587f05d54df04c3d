"""The work of the tracker's thread: bring the runs in MLflow up to date with the run folders. Uses no library."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from sweeper import trial
from sweeper.store import importance, lock, records, studies
from sweeper.store.importance import Importance
from sweeper.store.paths import StudyFolder
from sweeper.text import redacted
from sweeper.tracking import content, sync_state
from sweeper.tracking.sync_state import Event, RunSyncState, StudySyncState, TrackedRun, TrackedRuns
from sweeper.trial import Closing, Job, State, TrialResult
from trainers.support import failpoints, files

STUDY, STANDING, CLOSE, FILES = "study", "standing", "close", "files"
LOG_TAIL = 64_000  # characters of a failed run's log
FINAL = ("submission", "prediction", "predictions", "card", "history")  # files of a final model's folder to show


class Refused(Exception):
    """MLflow answered that it will never accept this, so retrying is useless."""


class Server(Protocol):
    """The operations needed from MLflow; each raises Refused, or any other error for a temporary failure."""

    uri: str

    def experiment(self, name: str) -> str: ...
    def view(self, experiment: str, key: str, state: str) -> None: ...
    def home(self, run: str) -> str | None: ...
    def run(self, experiment: str, name: str, tags: Mapping[str, str], start: int | None, new: bool) -> str: ...
    def log(
        self, run: str, points: Sequence[content.Point], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None: ...
    def status(self, run: str, status: str, end: int | None) -> None: ...
    def start(self, run: str) -> int: ...
    def text(self, run: str, name: str, text: str) -> None: ...
    def file(self, run: str, path: Path) -> None: ...


@dataclass(frozen=True)
class StudyInfo:
    """The facts that a tracker gets about a study when it is opened.

    `data_name` is the root of the data set, `names` are the parameters, `tags` fingerprints and the like, and
    `resume` is the command that resumes the study.
    """

    study: StudyFolder
    data_name: str
    metric: str
    spec_text: str
    minimize: bool = False  # less of the metric is better
    planned: int | None = None
    names: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    resume: str = "sweep run"


@dataclass
class Sent:
    """The data sent so far: runs, and the numbers of epochs and files."""

    runs: set[str] = field(default_factory=set)
    epochs: int = 0
    files: int = 0


class Reconciler:
    """The handler of tasks: `study` opens the study and sends its folders, `standing` sends the study's own metrics,
    `close` ends it, `files` sends its own files, and any other task is a run's key.

    Everything except `receive` belongs to the thread that does the tasks.
    """

    def __init__(self, facts: StudyInfo, connect: Callable[[], Server], recipe_text: Callable[[Job], str]) -> None:
        self.facts, self.sides = facts, TrackedRuns(facts.study)
        self.sent = Sent()
        self._heard: SimpleQueue[tuple[Job | None, Event | Closing]] = SimpleQueue()
        self._closing: Closing | None = None
        self._files: list[Path] = []  # of the study, to send
        self._connect, self._recipe_text = connect, recipe_text
        self._server: Server | None = None
        self._sync: StudySyncState | None = None
        self._points = 0  # of the study itself, known to be in MLflow

    @property
    def connected(self) -> bool:
        """True once MLflow has answered; before that, loading it takes time."""
        return self._sync is not None

    @property
    def moved(self) -> tuple[int, ...]:
        """A value that changes whenever something was sent."""
        return int(self.connected), len(self.sent.runs), self.sent.epochs, self.sent.files

    def receive(self, job: Job | None, event: Event | Closing) -> None:
        """Queue, from any thread, an event of the run of `job`, or of the study."""
        self._heard.put((job, event))

    def handle(self, task: str) -> None:
        while not self._heard.empty():
            self._take(*self._heard.get())
        server = self._server = self._server or self._connect()
        sync = self._sync = self._sync or self._open(server)
        if task == STUDY:
            for side in self.sides.load(lambda folder, result: sync_state.all_sent(folder, result, sync)):
                self._sync_run(server, sync, side)
            self._study(server, sync, "RUNNING")
            server.status(sync.run, "RUNNING", None)
        elif task == STANDING:
            if self._closing is None:
                self._study(server, sync, "RUNNING")
        elif task == CLOSE and self._closing:
            self._close(server, sync, self._closing.state)
        elif task == FILES:
            self._upload_figures(server, sync)
        elif asked := self.sides.get(task):
            self._sync_run(server, sync, asked)

    def _take(self, job: Job | None, event: Event | Closing) -> None:
        if isinstance(event, Closing):
            self._closing = event
            self._files += event.files
        elif job is None:
            self._files += event if isinstance(event, tuple) else ()
        else:
            self.sides.of(job).take(event)

    # ------------------------------------------------------------------------------------- study
    def _open(self, server: Server) -> StudySyncState:
        """Return the study's run in MLflow: the existing one, or a new one.

        Run ids are unique: if MLflow knows the id, its database is the one that created the run, moved or not. The
        study's own id is unique too, and its runs have it as a tag: if its run is gone, the runs below it are found.
        """
        path, uri = self.facts.study.sync_state, redacted(server.uri)
        sync = sync_state.read(path, StudySyncState)
        experiment = server.home(sync.run) if sync and sync.run else None
        if sync is None or experiment is None:
            sync = sync.model_copy(update={"uri": uri, "run": "", "files": {}}) if sync else StudySyncState(uri=uri)
            sync_state.write(path, sync)
            failpoints.failpoint("mlflow.study")
            experiment = server.experiment(Path(self.facts.data_name).resolve().name or "data")
        tags = {"sweep.id": sync.id, "sweep.kind": "study", **self._tags()}
        began = None if sync.run else records.began(self.facts.study)
        start = None if began is None else round(1000 * began)
        run = sync.run or server.run(experiment, self.facts.study.name, tags, start, False)
        server.view(experiment, sync.id, self._view(run))
        failpoints.failpoint("mlflow.study.born")
        sync = sync.model_copy(update={"uri": uri, "experiment": experiment, "run": run})
        sync_state.write(path, sync)
        server.log(run, (), {}, tags)
        server.text(run, "space.yaml", redacted(self.facts.spec_text))
        return sync

    def _view(self, run: str) -> str:
        """Return the table view, the most important parameters first."""
        names = importance.ordered(self.facts.names, importance.read(self.facts.study))
        return content.view(run, names, minimize=self.facts.minimize)

    def _tags(self) -> dict[str, str]:
        """Return the tags of the study and of every run in it."""
        space = hashlib.sha256(self.facts.spec_text.encode()).hexdigest()[:16]
        found = {"sweep.study": self.facts.study.name, "sweep.space": space, "mlflow.source.name": "sweep"}
        commit = content.commit()
        return found | ({"mlflow.source.git.commit": commit} if commit else {}) | dict(self.facts.tags)

    def _study(self, server: Server, sync: StudySyncState, state: State) -> None:
        """Bring the study's own metrics and note up to date with its trials."""
        ends = self.sides.ends()
        results = {number: result for number, (result, _) in ends.items()}
        points = content.progress(results, {number: ended for number, (_, ended) in ends.items()}, self.facts.metric)
        found = self._importance(results)
        facts, ended = self.facts, max((ended for _, ended in ends.values()), default=0.0)
        note = content.note(state, facts.metric, list(results.values()), facts.planned, facts.resume, found)
        tags = {"sweep.state": state, "mlflow.note.content": note}
        news = [*points[self._points :], *([content.mattered(found, ended)] if found and found.shares else [])]
        server.log(sync.run, news, {}, tags)
        self._points = len(points)

    def _importance(self, results: Mapping[int, TrialResult]) -> Importance | None:
        """Return the stored importance if it was computed from these trials."""
        found = importance.read(self.facts.study)
        counts = [sum(one.state == state for one in results.values()) for state in ("COMPLETE", "PRUNED")]
        return found if found and counts == [found.completed, found.pruned] else None

    def _close(self, server: Server, sync: StudySyncState, state: State) -> None:
        """Mark unfinished runs as interrupted or paused, except those of another process that holds the study."""
        holder = lock.holder(self.facts.study.lock)
        alone = holder is None or holder.pid == os.getpid()
        for side in self.sides.all():
            if side.result is None and (alone or side.live):
                side.result = side.standing("PAUSED" if side.folder.paused.exists() else "INTERRUPTED")
                self._sync_run(server, sync, side)
        self._upload_figures(server, sync)
        if alone:
            server.view(sync.experiment, sync.id, self._view(sync.run))
            self._study(server, sync, state)
            ran = round(1000 * records.elapsed_seconds(self.facts.study))  # without the breaks between sessions
            server.status(sync.run, trial.STATUS[state], server.start(sync.run) + ran)

    def _upload_figures(self, server: Server, sync: StudySyncState) -> None:
        """Send the study's files that MLflow lacks or has in another version."""
        stamps = {path: files.sha256(path)[:16] for path in self._files if path.exists()}
        for path, stamp in stamps.items():
            if sync.files.get(path.name) != stamp:
                server.file(sync.run, path)
                self.sent.files += 1
        self._files.clear()
        after = sync.model_copy(update={"files": {**sync.files, **{path.name: one for path, one in stamps.items()}}})
        if after != sync:
            self._sync = after
            sync_state.write(self.facts.study.sync_state, after)

    # --------------------------------------------------------------------------------------- run
    def _sync_run(self, server: Server, sync: StudySyncState, side: TrackedRun) -> None:
        """Bring one run in MLflow up to date with its folder."""
        if side.sync is None:
            known = sync_state.read(side.folder.sync_state, RunSyncState)
            side.sync = known if known and known.parent == sync.run else None
        if side.lost:
            return
        try:
            if side.sync is None or not _has_all(side, side.sync):
                side.sync = self._send(server, sync, side)
            side.sync = self._attach(server, side, side.sync)
            side.sync = self._scored(server, side, side.sync)
        except Refused:
            side.lost = True
            raise
        if side.result:
            self.sides.done(side)

    def _send(self, server: Server, sync: StudySyncState, side: TrackedRun) -> RunSyncState:
        before, result = side.sync, side.result
        run = before.run if before else self._born(server, sync, side)
        failpoints.failpoint("mlflow.run.born")
        tags = content.outcome(result) | content.fitted(side.job, side.epochs, result) if result else {}
        if before and before.sent and side.live and result is None:
            server.status(run, "RUNNING", None)
            tags = {"sweep.state": "RUNNING", "sweep.error": ""}
        points = content.points(side.job, side.epochs)
        news = points[side.points :] + (content.looked(side.job, result, side.ended) if result else [])
        server.log(run, news, {} if side.points else content.params(side.job), tags)
        self.sent.runs.add(side.key)
        self.sent.epochs += len(points) - side.points
        side.points = len(points)
        failpoints.failpoint("mlflow.run.points")
        if result is not None:
            self._ended(server, side, run, result)
        sent = result.state if result else "" if side.live else (before.sent if before else "")
        figures = before.figures if before else ()
        after = RunSyncState(
            parent=sync.run,
            run=run,
            sent=sent,
            points=0 if side.live else side.points,
            figures=figures,
            scores=before.scores if before else 0,
        )
        failpoints.failpoint("mlflow.run.sent")
        if after != before:
            sync_state.write(side.folder.sync_state, after)
        return after

    def _born(self, server: Server, sync: StudySyncState, side: TrackedRun) -> str:
        job = side.job
        tags = self._tags() | {
            "sweep.id": f"{sync.id}/{side.key}",
            "sweep.kind": job.kind,
            "sweep.trial": str(job.trial),
            "sweep.state": "RUNNING",
            "mlflow.parentRunId": sync.run,
        }
        first = side.epochs[0] if side.epochs else None
        start = round((first.time - first.seconds) * 1000) if first else None
        new, side.new = side.new, False
        run = server.run(sync.experiment, job.title, tags, start, new)
        server.text(run, "config.yaml", redacted(self._recipe_text(job)))
        return run

    def _ended(self, server: Server, side: TrackedRun, run: str, result: TrialResult) -> None:
        if result.state == "FAILED" and side.folder.log.exists():
            said = side.folder.log.read_text(encoding="utf-8", errors="replace")
            server.text(run, "log.txt", redacted(said[-LOG_TAIL:]))
        for path in _files(side):
            server.file(run, path)
        end = round(side.ended * 1000) if side.epochs else None
        server.status(run, trial.STATUS[result.state], end)

    def _attach(self, server: Server, side: TrackedRun, there: RunSyncState) -> RunSyncState:
        """Send the attached files, and the figures of a finished run, that MLflow lacks."""
        drawn = (records.drawn(side.folder) or ()) if side.result else ()
        paths = [*side.files, *(side.folder.figures / name for name in drawn)]
        news = {path.name: path for path in paths if path.name not in there.figures and path.exists()}
        for path in news.values():
            server.file(there.run, path)
            self.sent.files += 1
        side.files.clear()
        if not news:
            return there
        after = there.model_copy(update={"figures": (*there.figures, *news)})
        sync_state.write(side.folder.sync_state, after)
        return after

    def _scored(self, server: Server, side: TrackedRun, there: RunSyncState) -> RunSyncState:
        """Send new board scores of a final model."""
        points = content.board([*studies.scores(side.folder)])
        if len(points) <= there.scores:
            return there
        server.log(there.run, points[there.scores :], {}, {})
        after = there.model_copy(update={"scores": len(points)})
        sync_state.write(side.folder.sync_state, after)
        return after


def _has_all(side: TrackedRun, sync: RunSyncState) -> bool:
    """True if MLflow has the current state of the run, figures aside."""
    if side.result is None:
        return not side.live and bool(sync.sent) and sync.points == len(side.epochs)
    return sync.sent == side.result.state


def _files(side: TrackedRun) -> list[Path]:
    """Return the existing files of a final model to show."""
    usual = [getattr(side.folder, name) for name in FINAL] if side.job.kind == "final" else []
    return [path for path in usual if path.exists()]
