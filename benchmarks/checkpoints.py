"""Measure the share of a trial that a device spends outside its steps because of checkpoints.

    python benchmarks/checkpoints.py [--quick]

The trial is a ResNet-50 with AdamW and EMA on 5,000 images in batches of 64: checkpoints of 360 MB, models of 90 MB.
The device is simulated: it processes 1,000 or 3,000 images per second and leaves the processor idle meanwhile.
Sleeping too long counts as time outside steps, also in the lane without a checkpoint before the end. The lane "after
each epoch" waits for each write, as training did before a thread wrote checkpoints. The copy off a GPU (450 MB
through pinned memory) is not included. The exit code is 1 if the lanes leave different weights or predictions.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import rounds
import torch
from pictures import draw

from trainers import train as training
from trainers.config import EMA, AdamW, Recipe, TrainConfig
from trainers.epoch import Epoch, Scores
from trainers.evaluation.predict import Validation
from trainers.loading.batches import Data
from trainers.support.checkpoint import load_weights
from trainers.support.threads import CHECKPOINT_INTERVAL_S, INTERVAL_VARIABLE

IMAGES, BATCH = 5_000, 64
STEPS = IMAGES // BATCH
RATES = (1000, 3000)
GOAL = 0.03  # at the lower rate
BESIDE, AFTER, NONE = "beside training", "after each epoch", "at the end alone"


class Simulated(training.TrainingRun):
    """A run whose epochs change the weights once and otherwise sleep for the time that a device would take."""

    rate, waits = RATES[0], False

    def fit(self, index: int) -> tuple[Scores, float, float]:
        for parameter in self.net.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3 * (index + 1))
        began = time.perf_counter()
        self.step()
        left = STEPS * BATCH / self.rate - (time.perf_counter() - began)
        for _ in range(STEPS):
            time.sleep(left / STEPS)
        return scores(1.0 - index / 100), 1e-3, float(self.rate)

    def evaluate(self) -> Validation:
        logits = np.full((len(self.val), sum(self.data.sizes)), float(self.rate), dtype=np.float32)
        return Validation(val=scores(0.5), logits=logits, raw=logits)

    def save(self, epoch: Epoch, logits: np.ndarray | None) -> None:
        super().save(epoch, logits)
        if self.waits:
            self.writer.finish()


def scores(value: float) -> Scores:
    names = ("overall_accuracy", "mean_class_accuracy", "macro_precision", "macro_recall", "macro_f1", "micro_f1")
    return Scores(loss=value, category_accuracy={}, **dict.fromkeys(names, value))


def outside(recipe: Recipe, data: Data, folder: Path, rate: int, how: str) -> float:
    """Return the share of a trial, from its first step until all is on disk, that is spent outside steps."""
    os.environ[INTERVAL_VARIABLE] = {BESIDE: str(CHECKPOINT_INTERVAL_S), AFTER: "0", NONE: "1e9"}[how]
    kind = type("Lane", (Simulated,), {"rate": rate, "waits": how == AFTER})
    with mock.patch.object(training, "TrainingRun", kind), tempfile.TemporaryDirectory(dir=folder) as place:
        epochs = training.train(recipe, data, Path(place))
        first = next(epochs)
        began = time.perf_counter() - first.seconds
        for _ in epochs:
            pass
        spent = time.perf_counter() - began
        left[rate, how] = load_weights(Path(place) / "model.safetensors"), Path(place, "val_logits.npy").read_bytes()
    return 1 - recipe.train.epochs * STEPS * BATCH / rate / spent


left: dict[tuple[int, str], tuple[dict[str, torch.Tensor], bytes]] = {}


def sound() -> bool:
    """Return True if both lanes of each rate left the same weights and predictions."""
    pairs = [(left[rate, BESIDE], left[rate, AFTER]) for rate in RATES]
    weights = all(torch.equal(one[name], other[name]) for (one, _), (other, _) in pairs for name in one)
    return weights and all(one == other for (_, one), (_, other) in pairs)


def line(lane: str, values: list[float], *, judged: bool) -> list[object]:
    """Return the figures of a lane, unjudged if there are so few epochs that the end weighs too much."""
    rate, how = lane.split(" ", 1)
    middle = float(np.median(values))
    judged = judged and rate == str(RATES[0]) and how == BESIDE
    metric = (f"<= {GOAL:.0%}", rounds.verdict(middle, GOAL)) if judged else ("", "")
    return [rate, how, f"{middle:.1%}", f"{min(values):.1%}", f"{max(values):.1%}", *metric]


def main() -> int:
    given = rounds.arguments(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    epochs, many = (4, 1) if given.quick else (20, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = draw(folder / "images", train=BATCH, val=BATCH, size=32, side=32)
        data = Data.open(config, folder / "cache")
        train = TrainConfig(
            backbone="resnet50",
            pretrained=False,
            image_size=32,
            epochs=epochs,
            batch_size=BATCH,
            optimizer=AdamW(lr=1e-3),
            weight_averaging=EMA(),
        )
        recipe = Recipe(data=config, train=train)
        lanes: dict[str, Callable[[], float]] = {
            f"{rate} {how}": partial(outside, recipe, data, folder, rate, how)
            for rate in RATES
            for how in (NONE, BESIDE, AFTER)
        }
        found = rounds.interleave(lanes, many)
    print(rounds.hardware(), "\n")
    headers = ["images/s", f"checkpoints, {epochs} epochs", "outside steps, median", "least", "most", "target", ""]
    print(rounds.table(headers, (line(*one, judged=not given.quick) for one in found.items())), "\n")
    print(f"Gate, weights and predictions: {'passed' if sound() else 'FAILED'}")
    return int(not sound())


if __name__ == "__main__":
    sys.exit(main())
