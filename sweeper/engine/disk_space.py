"""Free space on a study's disk, and the space that its remaining trials need."""

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

SPARE = 16 * 2**20  # bytes besides checkpoints: databases, histories, logs
PIECE = 2**20  # bytes of the trial file before any checkpoint is known
RECENT = 64  # trials whose files are measured when a sweep starts
MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}  # tensors that an optimizer keeps per weight


# ------------------------------------------------------------------------------------------ one trial
@dataclass(frozen=True)
class TrialSize:
    """Sizes of a trial's files in bytes: model.safetensors, last.ckpt while it trains, val_logits.npy."""

    weights: int
    state: int
    logits: int = 0

    @property
    def while_saving(self) -> int:
        """Bytes while an epoch is being saved: every new file lies beside the one that it replaces."""
        return 2 * self.while_running

    @property
    def while_running(self) -> int:
        """Bytes between two epochs, and permanently for an abandoned trial."""
        return self.weights + self.state + self.logits

    @property
    def after_end(self) -> int:
        """Bytes once training is over: the last epoch's state holds no weights."""
        return self.weights + self.logits


def size(train: TrainConfig, weights: int) -> TrialSize:
    """Return the file sizes of a recipe with `weights` bytes of weights, including optimizer moments and averages."""
    copies = 1 + MOMENTS[train.optimizer.name] + (train.weight_averaging.name != "none")
    return TrialSize(weights, copies * weights)


def of_folds(one: TrialSize, count: int) -> TrialSize:
    """Return the file sizes of `count` trainings in sequence; the state of a finished one holds no weights."""
    return TrialSize(count * one.weights, one.state, count * one.logits)


# ------------------------------------------------------------------------------------------ a study
@dataclass
class DiskEstimate:
    """An estimate of the disk space that a study's trials need.

    `counted` holds the bytes of weights of each backbone, counted when its network was built. Sizes measured on
    trials of that backbone replace them; an unknown backbone counts as 0.
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
        """Measure the files of a trial after epoch `number`. The state is ignored after the last epoch of a training,
        when it is smaller.
        """
        trains = number % job.recipe.train.epochs > 0
        self._measure(job.recipe.train.backbone, RunFolder(job.folder), trains=trains)

    def size(self, train: TrainConfig, folds: int = 1) -> TrialSize:
        """Return the expected file sizes of a trial of `folds` trainings."""
        seen = self._seen.get(train.backbone, TrialSize(0, 0))
        guess = size(train, seen.weights or self.counted.get(train.backbone, 0))
        return of_folds(TrialSize(guess.weights, seen.state or guess.state, seen.logits), folds)

    def needed(self, jobs: Collection[Job]) -> int:
        """Return the bytes that these trials may still write, less what is already in their folders."""
        sizes = ((self.size(job.recipe.train, job.folds or 1), job) for job in jobs)
        return SPARE + sum(max(0, size.while_saving - _held(job.folder)) for size, job in sizes)

    def outlook(self, spec: "StudySpec", recipes: Iterable[Recipe]) -> str | None:
        """Return a warning if the checkpoints of the remaining trials will not all fit; None if they will, or their
        size is unknown.
        """
        trials = max(0, (spec.budget.trials or 0) - len(records.results(self.folder)))
        sizes = [self.size(recipe.train, recipe.folds or 1) for recipe in recipes]
        each = sum(size.after_end for size in sizes) / len(sizes)
        room_for = free(self.folder.root) - SPARE - max(size.while_saving for size in sizes)
        count = trials if spec.keep_checkpoints is None else min(trials, spec.keep_checkpoints)
        stays = sum(min(size.logits, MAX_PREDICTIONS) for size in sizes) / len(sizes)  # per completed trial
        whole = count * each + (trials - count) * stays
        if not each or not trials or whole <= room_for:
            return None
        some = max(1, min(10, int((room_for - trials * stays) / max(1, each - stays))))
        return (
            f"{trials} trials keep about {format_bytes(whole)}, {format_bytes(free(self.folder.root))} are "
            f"free: write keep_checkpoints: {some} into the YAML, or free some space, for example with sweep clean"
        )

    def enough(self, job: Job, running: Collection[Job]) -> bool:
        """True if `job` fits beside the running ones. Raises DiskFull if it does not and nothing is running."""
        need, there = self.needed([job, *running]), free(self.folder.root)
        if there >= need:
            return True
        if running:
            return False
        what = job.label
        raise DiskFull(str(self.folder.root), f"{what} would not fit", need, ahead=True)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _held(folder: Path) -> int:
    """Return the bytes already in a run's folder."""
    try:
        places = [folder, *(fold.root for fold in RunFolder(folder).folds)]
        return sum(_bytes(path) for place in places for path in place.iterdir())
    except FileNotFoundError:
        return 0
