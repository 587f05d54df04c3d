"""Measure how long a trial takes to start: in a fresh process, in a warm worker, and when it resumes.

    python benchmarks/warm.py [--quick] [--device cpu]

A real sweep trains twenty one-epoch trials of a tiny network on one slot, with MLflow. Training alone is the time of
their epochs by their own clock. The rest is the cost of coordination, building networks, checkpoints and records. For
comparison, one process per trial is measured, like a script that is started for each trial.
The gate: every trial is on record with one epoch.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import rounds

from sweeper.executors.local import Local
from sweeper.system.devices import slots
from sweeper.trial import Job, Progress
from trainers.config import Recipe
from trainers.data import demo
from trainers.epoch import Epoch
from trainers.models import network
from trainers.support.checkpoint import read_notes

HERE = Path(__file__).parent
SPACE = """\
study: warm
data: {{layout: challenge, root: {root}}}
budget: {{trials: {trials}}}
search: {{sampler: random, pruner: none}}
train:
  backbone: {backbone}
  pretrained: false
  image_size: 64
  optimizer: {{name: adamw, lr: {{loguniform: [1e-4, 1e-2]}}}}
  tta: {{flip: false, scales: [1.0]}}
  epochs: {epochs}
  batch_size: 32
"""
ALONE = """
import sys
from pathlib import Path
from trainers.config import Recipe
from trainers.loading.batches import Data
from trainers.train import train
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
data = Data.open(recipe.data, Path(sys.argv[2]))
list(train(recipe, data, Path(sys.argv[3]), device=sys.argv[4]))
"""


@dataclass(frozen=True)
class Swept:
    """One sweep: its trials' jobs and epochs, in the order in which they started."""

    jobs: list[Job]
    epochs: list[Epoch]
    seconds: float  # of the whole command

    @property
    def gaps(self) -> list[float]:
        """The seconds from the end of one trial's epoch to the start of the next one's."""
        begins = [epoch.time - epoch.seconds for epoch in self.epochs]
        return [begin - epoch.time for epoch, begin in zip(self.epochs, begins[1:], strict=False)]

    @property
    def over_training(self) -> float:
        """The time from the first epoch's start to the last one's end, over that of the epochs alone."""
        whole = self.epochs[-1].time - (self.epochs[0].time - self.epochs[0].seconds)
        return whole / sum(epoch.seconds for epoch in self.epochs)


def swept(place: Path, data: Path, trials: int, device: str, backbone: str) -> Swept:
    place.mkdir()
    space = SPACE.format(root=data, trials=trials, epochs=1, backbone=backbone)
    (place / "warm.yaml").write_text(space)
    env = {**os.environ, "SWEEP_HOME": str(place / "mlruns"), "PYTHONPATH": str(HERE.parent)}
    words = [
        sys.executable,
        "-m",
        "sweeper.cli",
        "run",
        str(place / "warm.yaml"),
        "--devices",
        rounds.devices(device),
    ]
    began = time.monotonic()
    ended = subprocess.run(words, cwd=place, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ended.returncode:
        sys.exit(ended.stderr)
    seconds = time.monotonic() - began
    folders = sorted((place / "mlruns/studies/warm/trials").iterdir())
    epochs = [Epoch.model_validate_json(line) for f in folders for line in (f / "history.jsonl").open()]
    return Swept([Job.model_validate_json((f / "config.json").read_text()) for f in folders], epochs, seconds)


def fresh(job: Job, place: Path, device: str) -> float:
    """Return the seconds that a separate process takes besides the epoch."""
    place.mkdir()
    (place / "recipe.json").write_text(job.recipe.model_dump_json())
    words = [sys.executable, "-c", ALONE, *map(str, (place / "recipe.json", job.cache, place / "run", device))]
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    whole = rounds.wall(lambda: subprocess.run(words, check=True, env=env))
    return whole - float(read_notes(place / "run/model.safetensors")["epoch"]["seconds"])


def resumed(job: Job, place: Path, device: str) -> list[float]:
    """Return the seconds from the request to a warm worker to the first step of a run that resumes after an epoch."""
    two = job.recipe.model_copy(update={"train": job.recipe.train.model_copy(update={"epochs": 2})})
    executor = Local(slots(rounds.devices(device)))
    found = []
    for number in range(4):
        folder = place / f"{number}"
        folder.mkdir(parents=True)
        paused = job.model_copy(update={"recipe": two, "folder": folder, "trial": number})
        for keep in (False, True):  # first one epoch, then to the end
            began = time.time()
            executor.start(paused)
            epochs = _heard(executor, paused.key, keep)
        found.append(epochs[-1].time - epochs[-1].seconds - began)
    executor.close()
    return found[1:]  # the first started in a cold worker


def _heard(executor: Local, key: str, keep: bool) -> list[Epoch]:
    epochs: list[Epoch] = []
    while True:
        message = executor.next(1.0)
        if isinstance(message, Progress):
            epochs.append(message.epoch)
            executor.answer(key, keep)
        elif message:
            return epochs


def building(recipe: Recipe, classes: list[int]) -> float:
    """Return the median seconds of building the network."""
    return statistics.median(rounds.wall(lambda: network.build(recipe.train, classes)) for _ in range(7))


def main() -> None:
    given = rounds.arguments(__doc__ or "").parse_args()
    backbone = "resnet50" if given.device == "cuda" else "resnet10t"
    trials = 8 if given.quick else 20
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        demo.draw(place / "data", images=(640, 96, 0))
        first = swept(place / "sweep", place / "data", trials, given.device, backbone)
        again = [fresh(first.jobs[n], place / f"fresh{n}", given.device) for n in range(2 if given.quick else 5)]
        back = resumed(first.jobs[0], place / "resumed", given.device)
        build = building(first.jobs[0].recipe, [7, 3, 3, 4, 6, 3])
    gap = statistics.median(first.gaps)
    epoch = statistics.median(epoch.seconds for epoch in first.epochs)
    process, trained = statistics.median(again), sum(epoch.seconds for epoch in first.epochs)
    rows: list[tuple[str, float, str]] = [
        (f"{trials} one-epoch trials over their epochs alone", first.over_training, "<= 1.3"),
        ("the whole command over the epochs alone", first.seconds / trained, ""),
        ("one process per trial over the epochs alone", (epoch + process) / epoch, ""),
        ("from the end of an epoch to the next trial's first step, s", gap, ""),
        ("  building the network, s", build, ""),
        ("  the rest, s", gap - build, "<= 0.1"),
        ("from the request to the first step of a resumed run, s", statistics.median(back), "<= 0.5"),
        ("a fresh process, besides its epoch, s", process, ""),
        ("an epoch, s", epoch, ""),
    ]
    print(rounds.hardware(given.device))
    print(f"{backbone} at 64 pixels, 640 drawn images, 6 categories; MLflow on\n")
    print(rounds.table(["", "figure", "target", ""], [[*row, _judged(row[1], row[2])] for row in rows]))
    whole = len(first.epochs) == trials and all(epoch.number == 1 for epoch in first.epochs)
    print(f"\ngate: {'held' if whole else 'BROKEN'}: {len(first.epochs)} trials of one epoch on record")
    sys.exit(0 if whole else 1)


def _judged(figure: float, metric: str) -> str:
    return rounds.verdict(figure, float(metric.removeprefix("<= "))) if metric else ""


if __name__ == "__main__":
    main()
