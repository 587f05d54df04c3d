"""The training speed of a recipe on this device, measured over a few steps of random images; JSON on stdout."""

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainers import extensions
from trainers.config import Recipe
from trainers.data.cache import Cache
from trainers.data.decoded_files import as_jpeg
from trainers.data.table import Category, Row, Table
from trainers.loading.batches import Data
from trainers.models import network
from trainers.support import device as devices
from trainers.support.leaving import leave
from trainers.train import TrainingRun

STEPS = 3  # at least, in one pass
GO = 0.5  # seconds of a pass on a GPU, at least: it is idle at the start and the end of each
SECONDS = 2.0  # of timing, at least
STILL = 1e-9  # learning rate of the head: hundreds of steps on noise must not overflow
MIN_MICRO_BATCH = 4  # images that pass through the network at once: fewer are not a batch


def measure(
    recipe: Recipe, categories: Sequence[Category], device: str, *, bf16: bool = False, seconds: float | None = None
) -> dict[str, float]:
    """Return images per second in training and evaluation, peak memory in GiB, the number of parameters, and whether
    the network is built for one image size. Training is timed for at least `seconds`, SECONDS if None. With `bf16`,
    also the speedup of training in that format where it might pay off: on a CPU that supports it, if the recipe
    chooses no format.

    These are the actual steps of `trainers.train`, including gathering and augmentation; weights are random and
    nothing is kept. A batch that does not fit on a GPU is halved, as it would be in a study, and halved again if need
    be.
    """
    still = recipe.train.optimizer.model_copy(update={"lr": STILL})
    train = recipe.train.model_copy(update={"pretrained": False, "optimizer": still})
    plain = recipe.model_copy(update={"train": train})
    micro = train.batch_size
    while True:
        try:
            return _measured(
                plain, categories, device, micro, bf16=bf16, seconds=SECONDS if seconds is None else seconds
            )
        except RuntimeError as error:
            if micro // 2 < MIN_MICRO_BATCH or not devices.no_room(error):
                raise
        micro //= 2
        devices.release()
        print(f"{train.backbone}: no room for {2 * micro} images at once, timed with {micro}", file=sys.stderr)


def _measured(
    recipe: Recipe, categories: Sequence[Category], device: str, micro: int, *, bf16: bool, seconds: float
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(recipe, random_data(recipe, categories), ("train",), torch.device(device), Path(folder))
        run.micro_batch = micro
        _warm_up(run)
        run.val = _whole(run)
        pace = _pace(run, seconds)
        found = {
            "parameters": sum(p.numel() for p in run.net.parameters()),
            "train_images_per_second": round(pace, 3),
            "val_images_per_second": round(_evaluation(run), 3),
            "peak_memory_gb": round(devices.peak_memory_gb(run.device), 3),
            "fixed_size": network.is_fixed(recipe.train.backbone),
        }
        if bf16 and device == "cpu" and recipe.train.precision == "auto" and devices.has_bf16():
            with suppress(RuntimeError):  # some operations lack bf16; the figure is optional
                found["bf16_speedup"] = round(_speedup(run), 2)
        return found


def _warm_up(run: TrainingRun) -> None:
    """Take the first steps, which are slower. A CPU needs only one; a GPU also gets more rows for a pass."""
    rows = run.rows
    if run.device.type != "cuda":
        run.rows = rows[: run.config.batch_size]
    run.fit(0)
    run.rows = rows
    if run.device.type == "cuda":
        run.rows *= math.ceil(GO * run.fit(0)[2] / len(rows))


def _speedup(run: TrainingRun) -> float:
    """Return the speedup of a step in bf16: the best of several, alternating with as many in fp32."""
    formats = [run.config, run.config.model_copy(update={"precision": "bf16"})]
    run.rows = run.rows[: run.config.batch_size]
    paces: list[list[float]] = [[], []]
    for _ in range(1 + STEPS):
        for found, config in zip(paces, formats, strict=True):
            run.config = config
            found.append(run.fit(0)[2])
    plain, half = (max(found[1:]) for found in paces)  # the first ones warm up
    return half / plain


def _pace(run: TrainingRun, seconds: float) -> float:
    """Return images per second in training: the median over the passes of at least `seconds`."""
    until = time.monotonic() + seconds
    paces = [run.fit(0)[2]]
    while time.monotonic() < until:
        paces.append(run.fit(0)[2])
    return statistics.median(paces)


def _whole(run: TrainingRun) -> list[int]:
    """Return the rows of val in full chunks, at least two, repeating rows where needed."""
    chunk = run.lens.batch
    return list(np.resize(run.val, chunk * max(2, math.ceil(len(run.val) / chunk))))


def _evaluation(run: TrainingRun) -> float:
    """Return images per second without gradients."""
    run.evaluate()
    began = time.monotonic()
    run.evaluate()
    return len(run.val) / (time.monotonic() - began)


def random_data(recipe: Recipe, categories: Sequence[Category]) -> Data:
    """Return a few batches of noise for train and two for val, with random labels, sized as in the cache."""
    rng = np.random.default_rng(0)
    counts = {"train": STEPS * recipe.train.batch_size, "val": 2 * recipe.train.batch_size}
    rows = tuple(
        Row(f"{split}{n}", split, None, tuple(_answer(categories, rng)), "")
        for split, count in counts.items()
        for n in range(count)
    )
    size = recipe.data.size or max(recipe.train.input_size)
    height, width = recipe.train.framing.size(size)
    images = rng.integers(0, 256, (len(rows), height, width, 3), dtype=np.uint8)
    if recipe.data.cache == "jpeg":
        patches = images[:, ::16, ::16] // 16 * 15
        images = images // 16 + patches.repeat(16, 1).repeat(16, 2)[:, :height, :width]  # noise alone costs more
    half = np.ascontiguousarray(images[:, ::2, ::2][:, : height // 2, : width // 2])
    sizes = np.full((len(rows), 2), (width, height), dtype=np.int32)
    jpeg = recipe.data.cache == "jpeg"
    cache = Cache(size, as_jpeg(images), as_jpeg(half), sizes) if jpeg else Cache(size, images, half, sizes)
    return Data(Table(Path(), tuple(categories), rows), cache)


def _answer(categories: Sequence[Category], rng: np.random.Generator) -> Iterator[int]:
    """Yield the labels of one image: a class per category, or a flag per class with several answers."""
    for category in categories:
        most, width = (2, len(category.classes)) if category.multi else (len(category.classes), 1)
        yield from (int(rng.integers(most)) for _ in range(width))


def sized(recipe: Recipe, side: int | None) -> Recipe:
    """Return the recipe with images of `side`, unless that is None or its network is built for one size."""
    if side is None or network.is_fixed(recipe.train.backbone):
        return recipe
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"image_size": side})})


def timed(recipe: Recipe, categories: Sequence[Category], device: str, **how: Any) -> dict[str, float]:
    """Return what `measure` finds, with the side of the images and the seconds that it took."""
    began = time.monotonic()
    found = measure(recipe, categories, device, **how)
    return {**found, "side": max(recipe.train.input_size), "seconds": round(time.monotonic() - began, 3)}


def main() -> None:
    """Read a JSON object with the arguments of `timed` from stdin; answer with a line of JSON."""
    asked = json.load(sys.stdin)
    extensions.load(asked["extensions"])
    categories = [Category(c["name"], tuple(c["classes"]), c["multi"]) for c in asked["categories"]]
    recipes = [Recipe.model_validate(recipe) for recipe in asked["recipes"]]
    with extensions.answering() as answer:
        how = {"bf16": asked["bf16"], "seconds": asked["seconds"]}
        found = [timed(sized(one, asked["side"]), categories, asked["device"], **how) for one in recipes]
        print(json.dumps(found), file=answer)


if __name__ == "__main__":
    main()
    leave()
