"""Small studies for tests: jobs, epochs and ends as the coordinator would put them on record."""

import math
from pathlib import Path
from typing import Any

from sweeper.store import records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.trial import Done, Failed, Failure, Job, State, TrialResult
from trainers.config import AdamW, Focal, Recipe, TrainConfig
from trainers.data_config import DataConfig
from trainers.epoch import Epoch, Scores

START = 1_800_000_000.0  # Unix time of the first epoch


def scores(value: float, loss: float = 0.5) -> Scores:
    return Scores(
        loss=loss,
        overall_accuracy=value,
        mean_class_accuracy=value - 0.1,
        macro_precision=value - 0.05,
        macro_recall=value - 0.1,
        macro_f1=value - 0.08,
        category_accuracy={"material": value + 0.01, "sleeve length": value - 0.01},
    )


def epoch(index: int, value: float, **changes: Any) -> Epoch:
    fields = {
        "train": scores(value + 0.02, loss=1.234567),
        "val": scores(value),
        "lr": 1.23456789e-4,
        "seconds": 10.0,
        "images_per_second": 1234.56,
        "peak_memory_gb": 3.2,
        "time": START + 10 * index,
    }
    return Epoch(number=index + 1, **(fields | changes))


def job(study: StudyFolder, number: int, **changes: Any) -> Job:
    metric = changes.pop("metric", "overall_accuracy")
    backbone = changes.pop("backbone", "resnet18.a1_in1k")
    gamma = changes.pop("gamma", 2.0 + number / 7)
    train = TrainConfig(
        backbone=backbone,
        epochs=changes.pop("epochs", 3),
        loss=Focal(gamma=gamma),
        optimizer=AdamW(lr=1e-3),
        selection=changes.pop("selection", "last"),
    )
    recipe = Recipe(data=DataConfig(root="data/clothes"), metric=metric, train=train)
    params = {"backbone": backbone, "loss.gamma": gamma, "schedule": "cosine"}
    fields = {"folder": study.trial(number).root, "cache": Path("cache"), "params": params}
    return Job(study=study.name, trial=number, recipe=recipe, **(fields | changes))


def begin(job: Job) -> Job:
    """Make the folder of a run, as a study does before it hands out a job."""
    job.folder.mkdir(parents=True, exist_ok=True)
    records.write_config(RunFolder(job.folder), job)
    return job


def end(
    job: Job,
    epochs: list[Epoch],
    state: State,
    *,
    trouble: Failure | None = None,
    error: str | None = None,
    standard_errors: dict[str, float] | None = None,
) -> TrialResult:
    """Put the end of a run on record."""
    failed = Failed(key=job.key, failure=trouble, text=error or "") if trouble else None
    done = Done(key=job.key, standard_errors=standard_errors or {})
    result = records.result_of(job, epochs, state, failed or done)
    if state != "INTERRUPTED":
        records.write_result(RunFolder(job.folder), result)
    return result


def curve(job: Job, top: float = 0.8, *, count: int | None = None) -> list[Epoch]:
    """Epochs that rise towards `top`, put on record."""
    count = job.recipe.train.epochs if count is None else count
    epochs = [epoch(i, top * (1 - math.exp(-i - 1)), time=START + 100 * job.trial + i) for i in range(count)]
    for each in epochs:
        records.append(RunFolder(job.folder), each)
    return epochs
