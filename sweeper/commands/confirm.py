"""Leaders that one validation set cannot tell apart, trained again with new seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from sweeper.engine import retraining
from sweeper.results.winner import confirmed, leaders
from sweeper.store import paths, records
from sweeper.store.paths import StudyFolder
from sweeper.trial import Done, Job, TrialResult
from trainers.epoch import Epoch
from trainers.metrics.definitions import oriented

if TYPE_CHECKING:
    from sweeper.system.devices import Slot

STRIDE = 1000  # between the seeds of two repeats, out of the way of the search's own repeats


@dataclass(frozen=True)
class Row:
    """A leader: its value in the search, and those with new seeds."""

    trial: int
    backbone: str
    value: float
    again: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.again)


def run(study: StudyFolder, repeats: int, slots: "Sequence[Slot]", *, mlflow: bool = True) -> list[Row]:
    """Train every leader on train `repeats` times with new seeds, those on record excepted; best mean first.

    On a full disk it waits, and goes on when there is room.
    """
    front = leaders(study)

    def left() -> list[Job]:
        return [job for repeat in range(1, repeats + 1) for one in front if (job := _job(study, one, repeat))]

    if jobs := left():
        recipe = jobs[0].recipe
        retraining.session(study, recipe, slots, lambda session: session.train(left(), _make_result), mlflow=mlflow)
    values = confirmed(study)
    rows = [Row(one.number, one.backbone, one.value or 0.0, tuple(values[one.number])) for one in front]
    return sorted(rows, key=lambda row: (-oriented(row.mean, minimize=front[0].minimize), row.trial))


def _job(study: StudyFolder, result: TrialResult, repeat: int) -> Job | None:
    """The `repeat`-th retraining of a trial, or None when it is on record."""
    folder = study.confirm(result.number, repeat)
    original = records.read_config(study.trial(result.number))
    if original is None or records.read_result(folder):
        return None
    train = original.recipe.train.model_copy(update={"seed": original.recipe.train.seed + STRIDE * repeat})
    changes = {
        "kind": "confirm",
        "recipe": original.recipe.model_copy(update={"train": train}),
        "folder": folder.root,
        "cache": paths.cache(),
        "resumed": False,
        "repeat_of": result.number,
    }
    return original.model_copy(update=changes)


def _make_result(job: Job, ended: Done, epochs: list[Epoch]) -> TrialResult:
    return records.result_of(job, epochs, "COMPLETE", ended)


# --------------------------------------------------------------------------------------- ways out
HEADERS = ("trial", "backbone", "in the search", "mean of new seeds", "spread", "seeds")


def cells(rows: Sequence[Row]) -> list[list[str]]:
    return [
        [
            str(row.trial),
            row.backbone,
            f"{row.value:.4f}",
            f"{row.mean:.4f}",
            f"{stdev(row.again):.4f}" if len(row.again) > 1 else "",
            str(len(row.again)),
        ]
        for row in rows
    ]


def document(study: StudyFolder, rows: Sequence[Row]) -> dict[str, Any]:
    leaders = [{"trial": row.trial, "value": row.value, "again": list(row.again), "mean": row.mean} for row in rows]
    return {"schema_version": 1, "study": study.name, "winner": rows[0].trial, "leaders": leaders}
