"""A study of thousands of ended trials, made fast: the files and rows that a sweep of the fake trainer leaves."""

import math
import random
import sqlite3
from contextlib import closing
from typing import Any

from sweeper import paths, record, spec
from sweeper.identity import Definition
from sweeper.paths import RunFolder, StudyFolder
from sweeper.space import Space
from sweeper.study import Study
from sweeper.trial import Job
from trainers.config import Epoch, Scores

EPOCHS = 20
START = 1_700_000_000.0
SPACE = """\
study: {name}
data: {{layout: folder, root: nothing}}
budget: {{trials: {trials}}}
search: {{sampler: tpe, pruner: {pruner}}}
train:
  backbone: {{choice: [resnet18, resnet50]}}
  loss: {{name: focal, gamma: {{uniform: [0.0, 5.0]}}}}
  optimizer: {{name: adamw, lr: {{loguniform: [1.0e-5, 1.0e-1]}}}}
  epochs: {epochs}
"""


def question(name: str, trials: int, *, pruner: str = "median", epochs: int = EPOCHS) -> tuple[spec.StudySpec, Space]:
    """A search space with three open values, as its file under $SWEEP_HOME is read."""
    path = paths.home() / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SPACE.format(name=name, trials=trials, pruner=pruner, epochs=epochs))
    read = spec.read(path)
    return read, Space(read, ["pattern", "sleeve"])


def opened(name: str, trials: int, **changes: Any) -> Study:
    """The study of that question, begun or taken up again."""
    read, space = question(name, trials, **changes)
    return Study.open(Definition(read, space, StudyFolder.named(name)), paths.cache())


def grow(name: str, trials: int) -> StudyFolder:
    """A study of `trials` ended trials, whose folders and database are those of as many real ones."""
    space = question(name, trials)[1]
    study = opened(name, trials)
    job = study.next_job()
    if job is None:
        raise RuntimeError("the study asked for nothing")
    study.close()
    draw = random.Random(0)
    values = [_values(draw) for _ in range(trials)]
    with closing(sqlite3.connect(study.folder.database)) as database, database:
        database.execute("PRAGMA synchronous=OFF")
        _rows(database, values)
    for number, (params, curve) in enumerate(values):
        _folder(study.folder.trial(number), space, job, params, curve)
    return study.folder


def _values(draw: random.Random) -> tuple[dict[str, Any], list[float]]:
    """Open values at random, and a curve that depends on them."""
    params = {
        "backbone": draw.choice(["resnet18", "resnet50"]),
        "loss.gamma": draw.uniform(0, 5),
        "optimizer.lr": math.exp(draw.uniform(math.log(1e-5), math.log(1e-1))),
    }
    top = 0.8 - 0.05 * (math.log10(params["optimizer.lr"]) + 3) ** 2 - 0.02 * abs(params["loss.gamma"] - 2)
    return params, [top * (1 - math.exp(-(index + 1) / 5)) for index in range(EPOCHS)]


def _rows(database: sqlite3.Connection, values: list[tuple[dict[str, Any], list[float]]]) -> None:
    """The trials as Optuna 5 lays them out; the columns of the parameters are those of the trial that is there."""
    database.execute("DELETE FROM trial_params")
    for table in ("trials", "trial_system_attributes"):
        database.execute(f"DELETE FROM {table}")  # noqa: S608
    at = "2026-01-01 00:00:00.000000"
    rows = [(k + 1, k, 1, "COMPLETE", at, at) for k in range(len(values))]
    database.executemany(
        "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        rows,
    )
    database.executemany(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
        [(k + 1, *row) for k, (params, _) in enumerate(values) for row in _stored(params)],
    )
    database.executemany(
        "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, 0, ?, 'FINITE')",
        [(k + 1, max(curve)) for k, (_, curve) in enumerate(values)],
    )
    database.executemany(
        "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) "
        "VALUES (?, ?, ?, 'FINITE')",
        [(k + 1, step + 1, value) for k, (_, curve) in enumerate(values) for step, value in enumerate(curve)],
    )


def _stored(params: dict[str, Any]) -> list[tuple[str, float, str]]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

    known = {
        "backbone": CategoricalDistribution(["resnet18", "resnet50"]),
        "loss.gamma": FloatDistribution(0, 5),
        "optimizer.lr": FloatDistribution(1e-5, 1e-1, log=True),
    }
    return [
        (name, known[name].to_internal_repr(value), distribution_to_json(known[name]))
        for name, value in params.items()
    ]


def _folder(folder: RunFolder, space: Space, like: Job, params: dict[str, Any], curve: list[float]) -> None:
    """A run folder's files, unsynced."""
    folder.root.mkdir(parents=True, exist_ok=True)
    number, recipe = int(folder.root.name), space.recipe(params)
    job = like.model_copy(update={"trial": number, "recipe": recipe, "params": params, "folder": folder.root})
    epochs = [_epoch(number, index, value) for index, value in enumerate(curve)]
    folder.config.write_text(job.model_dump_json(indent=1) + "\n")
    folder.history.write_text("".join(f"{one.model_dump_json()}\n" for one in epochs))
    folder.result.write_text(record.standing(job, epochs, "COMPLETE").model_dump_json(indent=1) + "\n")


def _epoch(number: int, index: int, value: float) -> Epoch:
    scores = Scores(
        loss=1 - value,
        overall_accuracy=value,
        mean_class_accuracy=value,
        macro_precision=value,
        macro_recall=value,
        macro_f1=value,
        category_accuracy={"pattern": value, "sleeve": value},
    )
    return Epoch(
        number=index + 1,
        train=scores,
        val=scores,
        lr=1e-3,
        seconds=1.0,
        images_per_second=1000.0,
        peak_memory_gb=0.0,
        time=START + 30 * number + index + 1,
    )
