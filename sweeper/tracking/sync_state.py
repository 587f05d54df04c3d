"""What a study knows of its runs in MLflow: which runs it owns there, and what of them has been sent."""

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
    """mlflow.json of a study. `id` is made up before the run is, so that a run whose answer got lost is found.

    `files` are the study's own that were sent, each with a checksum of its content.
    """

    model_config = ConfigDict(frozen=True)

    uri: str
    id: str = Field(default_factory=lambda: uuid4().hex[:12])
    experiment: str = ""
    run: str = ""
    files: Mapping[str, str] = Field(default_factory=dict)


class RunSyncState(BaseModel):
    """mlflow.json of a run folder; `sent` is the state up to which all has arrived, with `points` epochs, and
    `figures` are the files of it that were sent beside; of a final so many `scores` of boards.
    """

    model_config = ConfigDict(frozen=True)

    parent: str
    run: str
    sent: str = ""
    points: int = 0
    figures: tuple[str, ...] = ()
    scores: int = 0


Event = Literal["started"] | Epoch | TrialResult | tuple[Path, ...]
"""What happens to a run: it starts, an epoch is done, it ends, files are to be shown with it."""
Model = TypeVar("Model", bound=BaseModel)


def read(path: Path, kind: type[Model]) -> Model | None:
    """The sync state at `path`, or None where there is none or it cannot be read: then it is found or made anew."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write(path: Path, sync: BaseModel) -> None:
    """Put down what is there now; what a kill left of an earlier attempt goes, and nobody else's files."""
    for rest in path.parent.glob(f".{path.name}.*.tmp"):
        rest.unlink(missing_ok=True)
    files.write_text(path, sync.model_dump_json(indent=1) + "\n")


def all_sent(folder: RunFolder, result: TrialResult, sync: StudySyncState) -> bool:
    """Whether MLflow has all of an ended trial, with those of its figures that there are."""
    known = read(folder.sync_state, RunSyncState)
    if known is None or known.parent != sync.run or known.sent != result.state:
        return False
    return {*(records.drawn(folder) or ())} <= {*known.figures}


def key(folder: RunFolder) -> str:
    """A run's name inside its study, such as trials/0007."""
    return f"{folder.root.parent.name}/{folder.root.name}"


class TrackedRun:
    """One run as it is here: the job, its epochs, its end; and how much of that MLflow has."""

    def __init__(self, job: Job, folder: RunFolder) -> None:
        self.job, self.folder = job, folder
        self.epochs: list[Epoch] = records.history(folder)
        self.result: TrialResult | None = records.read_result(folder)
        self.files: list[Path] = []
        self.sync: RunSyncState | None = None
        self.points = 0  # how many epochs of it are known to be there
        self.live = False  # a worker is on it now
        self.new = False  # nobody can have told MLflow of it
        self.lost = False  # MLflow refuses it for good

    @property
    def key(self) -> str:
        return key(self.folder)

    def take(self, event: Event) -> None:
        """Take note of what happens to the run."""
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
        """Note the end; epochs nobody told of are taken from the record."""
        if len(self.epochs) < result.epochs:
            self.epochs = records.history(self.folder)
        self.result, self.live = result, False

    def standing(self, state: State = "RUNNING") -> TrialResult:
        """The end, or without one how it stands."""
        return self.result or records.result_of(self.job, self.epochs, state)

    @property
    def ended(self) -> float:
        """Unix time of the last epoch, or 0."""
        return self.epochs[-1].time if self.epochs else 0.0


class TrackedRuns:
    """The runs of one study, by key; they belong to the sender's thread alone."""

    def __init__(self, study: StudyFolder) -> None:
        self.study = study
        self._sides: dict[str, TrackedRun] = {}
        self._done: dict[int, tuple[TrialResult, float]] = {}  # trials of which MLflow has all: end, and when

    def get(self, key: str) -> TrackedRun | None:
        """The run called so, unless it is done with."""
        return self._sides.get(key)

    def of(self, job: Job, folder: RunFolder | None = None) -> TrackedRun:
        """The side of `job`; the first time, with the epochs and the end that its folder already holds."""
        folder = folder or RunFolder(job.folder)
        known = self._sides.get(key(folder))
        return known or self._sides.setdefault(key(folder), TrackedRun(job, folder))

    def all(self) -> list[TrackedRun]:
        return list(self._sides.values())

    def done(self, side: TrackedRun) -> None:
        """Forget an ended trial but for its end: thousands of histories are too much to keep."""
        if side.job.kind == "trial" and side.result and side.result.state != "INTERRUPTED":
            self._done[side.job.trial] = side.result, side.ended
            self._sides.pop(side.key, None)

    def ends(self) -> dict[int, tuple[TrialResult, float]]:
        """How every trial stands, by number, and when its last epoch ended (Unix time)."""
        trials = [side for side in self._sides.values() if side.job.kind == "trial"]
        return self._done | {side.job.trial: (side.standing(), side.ended) for side in trials}

    def load(self, sent: Callable[[RunFolder, TrialResult], bool]) -> Iterator[TrackedRun]:
        """The runs that have a folder, trials first; of ended trials of which all is `sent` only the end is read."""
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
