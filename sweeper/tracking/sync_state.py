"""The sync state of a study: its runs in MLflow, and how much of each has been sent."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sweeper.store import records, trial_index
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.trial import Job, State, TrialResult
from trainers.epoch import Epoch
from trainers.support import files


class StudySyncState(BaseModel):
    """mlflow.json of a study. `id` is generated before the run is created, so that the run is found if the answer
    gets lost.

    `files` are the study's own files that were sent, each with a checksum of its content.
    """

    model_config = ConfigDict(frozen=True)

    uri: str
    id: str = Field(default_factory=lambda: uuid4().hex[:12])
    experiment: str = ""
    run: str = ""
    files: Mapping[str, str] = Field(default_factory=dict)


class RunSyncState(BaseModel):
    """mlflow.json of a run folder: everything up to the state `sent` has arrived, with `points` epochs, the files
    `figures`, and, for a final model, `scores` board scores.
    """

    model_config = ConfigDict(frozen=True)

    parent: str
    run: str
    sent: str = ""
    points: int = 0
    figures: tuple[str, ...] = ()
    scores: int = 0


Event = Literal["started"] | Epoch | TrialResult | tuple[Path, ...]
"""An event of a run: it starts, an epoch is done, it finishes, or files are attached to it."""
Model = TypeVar("Model", bound=BaseModel)


def read(path: Path, kind: type[Model]) -> Model | None:
    """Read the sync state at `path`; None if it is missing or unreadable, in which case it is rebuilt."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write(path: Path, sync: BaseModel) -> None:
    """Write the sync state, and remove its own temporary files left by killed processes."""
    for rest in path.parent.glob(f".{path.name}.*.tmp"):
        rest.unlink(missing_ok=True)
    files.write_text(path, sync.model_dump_json(indent=1) + "\n")


def all_sent(folder: RunFolder, result: TrialResult, sync: StudySyncState) -> bool:
    """True if MLflow has all of a finished trial, including its existing figures."""
    known = read(folder.sync_state, RunSyncState)
    if known is None or known.parent != sync.run or known.sent != result.state:
        return False
    return {*(records.drawn(folder) or ())} <= {*known.figures}


def key(folder: RunFolder) -> str:
    """Return a run's name inside its study, such as trials/0007."""
    return f"{folder.root.parent.name}/{folder.root.name}"


class TrackedRun:
    """One local run: its job, epochs and result, and how much of them MLflow has."""

    def __init__(self, job: Job, folder: RunFolder) -> None:
        self.job, self.folder = job, folder
        self.epochs: list[Epoch] = records.history(folder)
        self.result: TrialResult | None = records.read_result(folder)
        self.files: list[Path] = []
        self.sync: RunSyncState | None = None
        self.points = 0  # epochs known to be in MLflow
        self.live = False  # a worker is running it now
        self.new = False  # MLflow cannot know it yet
        self.lost = False  # MLflow refuses it permanently

    @property
    def key(self) -> str:
        return key(self.folder)

    def take(self, event: Event) -> None:
        """Apply an event to the run."""
        match event:
            case "started":
                self.result, self.live, self.new = None, True, self.job.kind == "trial" and not self.job.resumed
            case Epoch(number=number) if number == len(self.epochs) + 1:
                self.epochs.append(event)
            case TrialResult():
                self.end(event)
            case tuple():
                self.files += event

    def end(self, result: TrialResult) -> None:
        """Set the result; epochs that were not announced are read from the record."""
        if len(self.epochs) < result.epochs:
            self.epochs = records.history(self.folder)
        self.result, self.live = result, False

    def standing(self, state: State = "RUNNING") -> TrialResult:
        """Return the result, or the status so far if the run has not finished."""
        return self.result or records.result_of(self.job, self.epochs, state)

    @property
    def ended(self) -> float:
        """Unix time of the last epoch, or 0."""
        return self.epochs[-1].time if self.epochs else 0.0


class TrackedRuns:
    """The runs of one study, by key; for use by the sender's thread only."""

    def __init__(self, study: StudyFolder) -> None:
        self.study = study
        self._sides: dict[str, TrackedRun] = {}
        self._done: dict[int, tuple[TrialResult, float]] = {}  # trials that MLflow has completely: result and time

    def get(self, key: str) -> TrackedRun | None:
        """Return the run with this key, unless it is done."""
        return self._sides.get(key)

    def of(self, job: Job, folder: RunFolder | None = None) -> TrackedRun:
        """Return the run of `job`; when first requested, its epochs and result are read from its folder."""
        folder = folder or RunFolder(job.folder)
        known = self._sides.get(key(folder))
        return known or self._sides.setdefault(key(folder), TrackedRun(job, folder))

    def all(self) -> list[TrackedRun]:
        return list(self._sides.values())

    def done(self, side: TrackedRun) -> None:
        """Forget a finished trial except its result: thousands of histories are too much to keep."""
        if side.job.kind == "trial" and side.result and side.result.state != "INTERRUPTED":
            self._done[side.job.trial] = side.result, side.ended
            self._sides.pop(side.key, None)

    def ends(self) -> dict[int, tuple[TrialResult, float]]:
        """Return the status of every trial, by number, and the time of its last epoch (Unix time)."""
        trials = [side for side in self._sides.values() if side.job.kind == "trial"]
        return self._done | {side.job.trial: (side.standing(), side.ended) for side in trials}

    def load(self, sent: Callable[[RunFolder, TrialResult], bool]) -> Iterator[TrackedRun]:
        """Yield the runs that have a folder, trials first; of a trial that is all `sent`, only the result is read."""
        known = trial_index.read(self.study)
        for number, folder in records.folders(self.study):
            entry = known.get(number)
            if entry and key(folder) not in self._sides and sent(folder, entry.result):
                self._done[number] = entry.result, entry.ended
            elif job := records.read_config(folder):
                yield self.of(job, folder)
        for folder in records.retrainings(self.study):
            if job := records.read_config(folder):
                yield self.of(job, folder)
