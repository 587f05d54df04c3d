"""The material of the sections: made-up data, recipes, and runs that take the GPU's path on any device."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from trainers.config import Augment, Recipe
from trainers.data.cache import Cache, wanted_side
from trainers.data.table import Category, Row, Table
from trainers.loading.batches import Data
from trainers.loading.image_store import gather
from trainers.loading.loader import AugmentationSource, Batch
from trainers.train import TrainingRun

from .place import Cpu

GARMENT = (("sleeve", 7), ("neck", 3), ("waist", 3), ("print", 4), ("fabric", 6), ("fit", 3))
COLOUR = (("colour", 4),)
MEDIUM = {
    "horizontal_flip": 0.5,
    "random_resized_crop": {"scale": (0.5, 1.0)},
    "color_jitter": {"brightness": 0.2, "contrast": 0.2},
}
STRONG = MEDIUM | {
    "rotation": 10,
    "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05},
    "trivial_augment": True,
    "noise": 0.5,
    "random_erasing": 0.3,
}
STRONG |= {"mixup": 0.2, "cutmix": 1.0}
TINY = "test_resnet"  # the network on a CPU


def noise(train: int, val: int, side: int, categories: Sequence[tuple[str, int]] = GARMENT) -> Data:
    """Return noise images with random labels, decoded at `side` pixels."""
    rng = np.random.default_rng(0)
    known = tuple(Category(name, tuple(f"{name}{k}" for k in range(count))) for name, count in categories)
    rows = tuple(
        Row(f"{split}{number}", split, None, tuple(int(rng.integers(count)) for _, count in categories), "")
        for split, count in (("train", train), ("val", val))
        for number in range(count)
    )
    return _data(Table(Path(), known, rows), rng.integers(0, 256, (len(rows), side, side, 3), dtype=np.uint8))


def colours(train: int, val: int, side: int) -> Data:
    """Return images whose colour is their class, which any network can learn."""
    data, rng = noise(train, val, side, COLOUR), np.random.default_rng(1)
    paint = rng.integers(40, 216, (len(data.table.categories[0].classes), 3))
    labels = data.labels(range(len(data.table.rows)))[:, 0]
    images = 0.25 * gather(data.cache.images, np.arange(len(labels))).numpy() + 0.75 * paint[labels][:, None, None]
    return _data(data.table, images.astype(np.uint8))


def _data(table: Table, images: np.ndarray) -> Data:
    side = images.shape[1]
    half = np.ascontiguousarray(images[:, ::2, ::2][:, : side // 2, : side // 2])
    return Data(table, Cache(side, images, half, np.full((len(images), 2), side, dtype=np.int32)))


def recipe(side: int, level: int, **train: Any) -> Recipe:
    """Return the recipe of a small network for images of `side`, decoded at `level`, with the given settings."""
    base = {
        "backbone": TINY,
        "pretrained": False,
        "image_size": side,
        "batch_size": 8,
        "epochs": 2,
        "augment": MEDIUM,
    }
    return Recipe.model_validate({"data": {"root": ".", "size": level}, "train": base | train})


def level(side: int) -> int:
    """Return the side at which images are decoded for networks with inputs of `side`."""
    return wanted_side(side, Augment.model_validate(MEDIUM).smallest_window)


@contextmanager
def run(place: Cpu, how: Recipe, data: Data) -> Iterator[TrainingRun]:
    """Open a run that augments images on the device, even on a CPU, in a temporary folder."""
    with folder() as where:
        made = TrainingRun(how, data, ("train",), place.device, where)
        made.lens.hosted = False
        yield made


@contextmanager
def folder() -> Iterator[Path]:
    """Create a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def batches(of: TrainingRun, count: int) -> Iterator[Batch]:
    """Yield `count` batches as in an epoch."""
    size = of.config.batch_size
    rows = np.resize(np.asarray(of.rows), count * size)
    drawing = AugmentationSource(of.config.augment, np.random.default_rng(0), of.minority)
    feed = of.lens.feed(of.config.input_size, training=True)
    return feed.training([rows[k * size : (k + 1) * size] for k in range(count)], drawing)


def step(of: TrainingRun, batch: Batch) -> tuple[Tensor, Tensor]:
    """Train one step on `batch`, and return its mean loss and the logits."""
    loss, logits = of.backward(batch, 1)
    of.step()
    return loss, logits
