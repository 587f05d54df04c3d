"""How much room there is on a study's disk, and how much of it the trials to come need."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.errors import DiskFull
from sweeper.store import records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.retention import MAX_PREDICTIONS
from sweeper.system.disks import free
from sweeper.text import format_bytes
from sweeper.trial import OPEN, Job
from trainers.config import Recipe, TrainConfig

if TYPE_CHECKING:
    from sweeper.space.spec import StudySpec

SPARE = 16 * 2**20  # bytes beside checkpoints: databases, histories, logs
PIECE = 2**20  # bytes of a file that is tried where no checkpoint was seen yet
RECENT = 64  # trials whose files are measured when a sweep begins
MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}  # tensors that an optimizer keeps beside each weight


# ------------------------------------------------------------------------------------------ one trial
@dataclass(frozen=True)
class TrialSize:
    """Bytes of a trial's files: model.safetensors, last.ckpt while it trains, val_logits.npy."""

    weights: int
    state: int
    logits: int = 0

    @property
    def while_saving(self) -> int:
        """While an epoch is put down: every file lies beside the one that it takes the place of."""
        return 2 * self.while_running

    @property
    def while_running(self) -> int:
        """Between two epochs; and for good of a trial that was given up."""
        return self.weights + self.state + self.logits

    @property
    def after_end(self) -> int:
        """Once it is over: the state of the last epoch holds the weights alone."""
        return 2 * self.weights + self.logits


def size(train: TrainConfig, weights: int) -> TrialSize:
    """What a recipe with so many bytes of weights puts down: moments of its optimizer and the average, too."""
    copies = 1 + MOMENTS[train.optimizer.name] + (train.weight_averaging.name != "none")
    return TrialSize(weights, copies * weights)


def of_folds(one: TrialSize, count: int) -> TrialSize:
    """What so many trainings put down, one after the other: of those that are over the state is the weights alone."""
    return TrialSize(count * one.weights, one.state + (count - 1) * one.weights, count * one.logits)


# ------------------------------------------------------------------------------------------ a study
@dataclass
class DiskEstimate:
    """Whether the trials of a study fit on its disk.

    `counted` are the bytes of weights of each backbone, as counted when its network was built. What a trial of the
    backbone has put down takes their place; of one of which nothing is known, nothing is expected.
    """

    folder: StudyFolder
    counted: Mapping[str, int] = field(default_factory=dict)
    _seen: dict[str, TrialSize] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for result in records.results(self.folder)[-RECENT:]:
            whole = result.state in OPEN or result.epochs < result.planned  # the last epoch's state is smaller
            self._measure(result.backbone, self.folder.trial(result.number), trains=whole)

    def _measure(self, backbone: str, folder: RunFolder, *, trains: bool) -> None:
        before = self._seen.get(backbone, TrialSize(0, 0))
        runs = [folder, *folder.folds]
        weights, logits = (max(_bytes(getattr(run, name)) for run in runs) for name in ("model", "val_logits"))
        found = TrialSize(weights, _bytes(runs[-1].checkpoint) if trains else 0, logits)
        pairs = ((getattr(before, name), getattr(found, name)) for name in ("weights", "state", "logits"))
        self._seen[backbone] = TrialSize(*(max(pair) for pair in pairs))

    def learn(self, job: Job, number: int) -> None:
        """Measure what a trial has put down by the epoch of that number: after the last of a training the state is
        smaller, and does not count.
        """
        trains = number % job.recipe.train.epochs > 0
        self._measure(job.recipe.train.backbone, RunFolder(job.folder), trains=trains)

    def size(self, train: TrainConfig, folds: int = 1) -> TrialSize:
        """What a trial of so many trainings puts down, as far as known."""
        seen = self._seen.get(train.backbone, TrialSize(0, 0))
        guess = size(train, seen.weights or self.counted.get(train.backbone, 0))
        return of_folds(TrialSize(guess.weights, seen.state or guess.state, seen.logits), folds)

    def needed(self, jobs: Collection[Job]) -> int:
        """Bytes that these trials may write yet; what lies in their folders is there already."""
        sizes = ((self.size(job.recipe.train, job.folds or 1), job) for job in jobs)
        return SPARE + sum(max(0, size.while_saving - _held(job.folder)) for size, job in sizes)

    def outlook(self, spec: "StudySpec", recipes: Iterable[Recipe]) -> str | None:
        """A line where the checkpoints of the trials to come will not all fit, if what they take is known."""
        trials = max(0, (spec.budget.trials or 0) - len(records.results(self.folder)))
        sizes = [self.size(recipe.train, recipe.folds or 1) for recipe in recipes]
        each = sum(size.after_end for size in sizes) / len(sizes)
        room_for = free(self.folder.root) - SPARE - max(size.while_saving for size in sizes)
        count = trials if spec.keep_checkpoints is None else min(trials, spec.keep_checkpoints)
        stays = sum(min(size.logits, MAX_PREDICTIONS) for size in sizes) / len(sizes)  # of every completed trial
        whole = count * each + (trials - count) * stays
        if not each or not trials or whole <= room_for:
            return None
        some = max(1, min(10, int((room_for - trials * stays) / max(1, each - stays))))
        return (
            f"{trials} trials keep about {format_bytes(whole)}, {format_bytes(free(self.folder.root))} are "
            f"free: write keep_checkpoints: {some} into the YAML, or make room, for example with sweep clean"
        )

    def enough(self, job: Job, running: Collection[Job]) -> bool:
        """Whether `job` fits beside those that run. Raises DiskFull where it does not, and nothing runs."""
        need, there = self.needed([job, *running]), free(self.folder.root)
        if there >= need:
            return True
        if running:
            return False
        what = f"trial {job.trial}" if job.kind == "trial" else job.title
        raise DiskFull(str(self.folder.root), f"{what} would not fit", need, ahead=True)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _held(folder: Path) -> int:
    """Bytes that lie in a run's folder."""
    try:
        places = [folder, *(fold.root for fold in RunFolder(folder).folds)]
        return sum(_bytes(path) for place in places for path in place.iterdir())
    except FileNotFoundError:
        return 0
