"""Create a study of thousands of finished trials quickly: the files that a sweep with the fake trainer leaves."""

import math
import random
from typing import Any

from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.store import paths, records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.study.state import Definition
from sweeper.study.study import Study
from sweeper.trial import Job
from trainers.epoch import Epoch, Scores

EPOCHS = 20
START = 1_700_000_000.0
SPACE = """\
study: {name}
data: {{layout: folder, root: nothing}}
budget: {{trials: {trials}{hours}}}
search: {{sampler: tpe, pruner: {pruner}}}
train:
  backbone: {{choice: [resnet18, resnet50]}}
  loss: {{name: focal, gamma: {{uniform: [0.0, 5.0]}}}}
  optimizer: {{name: adamw, lr: {{loguniform: [1.0e-5, 1.0e-1]}}}}
  epochs: {epochs}
"""


def question(
    name: str, trials: int, *, hours: float | None = None, pruner: str = "median", epochs: int = EPOCHS
) -> tuple[yaml_io.StudySpec, Space]:
    """Write a search space with three open parameters to $SWEEP_HOME, and return it as it is read."""
    path = paths.home() / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    limit = "" if hours is None else f", hours: {hours}"
    path.write_text(SPACE.format(name=name, trials=trials, hours=limit, pruner=pruner, epochs=epochs))
    read = yaml_io.read(path)
    return read, Space(read, ["pattern", "sleeve"])


def opened(name: str, trials: int, **changes: Any) -> Study:
    """Start or resume the study of that search space."""
    read, space = question(name, trials, **changes)
    return Study.open(Definition(read, space, StudyFolder.named(name)), paths.cache())


def grow(name: str, trials: int) -> StudyFolder:
    """Create a study of `trials` finished trials, with folders like those of real ones."""
    space = question(name, trials)[1]
    study = opened(name, trials)
    job = study.next_job()
    if job is None:
        raise RuntimeError("the study has no next job")
    study.close()
    draw = random.Random(0)
    for number in range(trials):
        _folder(study.folder.trial(number), space, job, *_values(draw))
    return study.folder


def _values(draw: random.Random) -> tuple[dict[str, Any], list[float]]:
    """Draw parameters at random, and a curve that depends on them."""
    params: dict[str, Any] = {
        "backbone": draw.choice(["resnet18", "resnet50"]),
        "loss.gamma": draw.uniform(0, 5),
        "optimizer.lr": math.exp(draw.uniform(math.log(1e-5), math.log(1e-1))),
    }
    top = 0.8 - 0.05 * (math.log10(params["optimizer.lr"]) + 3) ** 2 - 0.02 * abs(params["loss.gamma"] - 2)
    return params, [top * (1 - math.exp(-(index + 1) / 5)) for index in range(EPOCHS)]


def _folder(folder: RunFolder, space: Space, like: Job, params: dict[str, Any], curve: list[float]) -> None:
    """Write the files of a run's folder, without syncing them."""
    folder.root.mkdir(parents=True, exist_ok=True)
    number, recipe = int(folder.root.name), space.recipe(params)
    job = like.model_copy(update={"trial": number, "recipe": recipe, "params": params, "folder": folder.root})
    epochs = [_epoch(number, index, value) for index, value in enumerate(curve)]
    folder.config.write_text(job.model_dump_json(indent=1) + "\n")
    folder.history.write_text("".join(f"{one.model_dump_json()}\n" for one in epochs))
    folder.result.write_text(records.result_of(job, epochs, "COMPLETE").model_dump_json(indent=1) + "\n")


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
