"""Measure the effect of the cache's size, and of JPEG in it, on score and speed, for equal recipes and seeds.

    python benchmarks/cache_size.py --root data/clothing --weights weights/tf_efficientnet_lite0.safetensors
    python benchmarks/cache_size.py --drawn 600

There are three caches: 1.14 times the network's input, large enough that no random crop is enlarged, and the latter
as JPEG. The data set is a table with a test split, or is drawn here: pictures of 1,000 x 1,000 pixels in which a mark
of --mark pixels is the class. Each run adds one line of JSON to --out. Runs that are there are not trained again.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rounds
from PIL import Image, ImageDraw

from sweeper.space import defaults
from trainers.config import Recipe
from trainers.data import layouts
from trainers.data.cache import open_cache, side
from trainers.data.challenge import FASHION
from trainers.data.demo_images import Traits, picture
from trainers.data_config import DataConfig
from trainers.evaluation.predict import predict, scores
from trainers.loading.batches import Data
from trainers.train import train

CROP = {"horizontal_flip": 0.5, "random_resized_crop": {"scale": (0.35, 1.0)}}
VARIANTS = {"1.14 x": (False, "raw"), "without enlarging": (True, "raw"), "without enlarging, JPEG": (True, "jpeg")}
MARKS = ("ring", "disc", "square", "cross")
SIDE = 1000  # pixels
METRICS = ("overall_accuracy", "mean_class_accuracy")
COSTS = ("images_per_second", "cpu_ms_per_image", "load")


def draw(root: Path, count: int, size: int) -> None:
    """Draw a table of `count` pictures, a sixth of them val and a sixth test, whose class is a small mark."""
    (root / "images").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    classes = {name: classes for classes, name in FASHION.items()}
    for number in range(count):
        traits = Traits(*(int(rng.integers(len(classes[name]))) for name in Traits._fields))
        image, mark = picture(traits, (SIDE, SIDE), rng)[0], MARKS[number % len(MARKS)]
        _paint(image, mark, size, rng)
        path = f"images/{number:05d}.jpg"
        image.save(root / path, quality=92)
        split = ("val", "test", "train", "train", "train", "train")[number // len(MARKS) % 6]
        rows.append([path, split, mark])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "split", "mark"], *rows])


def _paint(image: Image.Image, mark: str, size: int, rng: np.random.Generator) -> None:
    """Paint a white mark on a dark patch in the middle half of the picture."""
    left, top = (int(rng.integers(SIDE // 4, 3 * SIDE // 4)) for _ in range(2))
    brush, right, bottom = ImageDraw.Draw(image), left + size, top + size
    box, stroke, edge = (left, top, right, bottom), size // 4, size // 3
    brush.rectangle((left - edge, top - edge, right + edge, bottom + edge), fill=(30, 30, 40))
    match mark:
        case "ring":
            brush.ellipse(box, outline="white", width=stroke)
        case "disc":
            brush.ellipse(box, fill="white")
        case "square":
            brush.rectangle(box, outline="white", width=stroke)
        case "cross":
            brush.line(box, fill="white", width=stroke)
            brush.line((left, bottom, right, top), fill="white", width=stroke)


def run(given: argparse.Namespace, root: Path) -> None:
    """Train the runs that --out lacks, seed by seed, so that an interruption leaves complete rounds."""
    done = {(one["variant"], one["seed"]) for one in rounds.recorded(given.out)}
    for seed in range(given.seeds):
        for variant in VARIANTS:
            if (variant, seed) not in done:
                found = measured(given, root, variant, seed)
                with given.out.open("a") as file:
                    file.write(json.dumps({"variant": variant, "seed": seed} | found) + "\n")
                print(variant, seed, json.dumps(found), flush=True)


def measured(given: argparse.Namespace, root: Path, variant: str, seed: int) -> dict[str, Any]:
    """Train once, and return the scores on test, images per second, size of decoded images, and load average."""
    fits, kind = VARIANTS[variant]
    config = DataConfig(layout="table", root=str(root), cache=kind)
    how = Recipe.model_validate({"data": config.model_dump(), "train": chosen(given, seed)})
    table = layouts.read(config)
    window = how.train.augment.smallest_window if fits else 1.0
    config = config.model_copy(update={"size": side(given.size, table, window)})
    data = Data(table, open_cache(table, config, given.cache))
    how = how.model_copy(update={"data": config})
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.monotonic(), time.process_time()
        *_, last = train(how, data, Path(folder), device=given.device)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        weights = Path(folder) / "model.safetensors"
        logits = predict(how, data, weights, split="test", device=given.device)
    judged = scores(how, data, logits, split="test", fit=("train",))
    seen = how.train.epochs * (len(table.split("train")) + len(table.split("val")))
    return {
        "px": config.size,
        "load": os.getloadavg()[0],
        "images_per_second": seen / seconds,
        "cpu_ms_per_image": 1000 * cpu / seen,
        "train_images_per_second": last.images_per_second,
        **{metric: judged.value(metric) for metric in METRICS},
    }


def chosen(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    base = {
        "backbone": given.backbone,
        "image_size": given.size,
        "augment": CROP,
        "epochs": given.epochs,
        "seed": seed,
    }
    weights: dict[str, Any] = {"weights": given.weights} if given.weights else {"pretrained": False}
    if described := defaults.described_by(given.weights, given.backbone):
        scale = {"mean": described.mean, "std": described.std}
        weights |= {"backbone_args": described.arguments, "normalize": scale}
    optimizer = {"name": "adamw", "lr": given.lr, "weight_decay": 0.05}
    return base | weights | {"batch_size": given.batch, "optimizer": optimizer, "seed": seed}


def table(runs: list[dict[str, Any]]) -> Iterator[list[object]]:
    """Yield a line per variant: means and standard errors over seeds, and its gain over the first variant."""
    first = {one["seed"]: one for one in runs if one["variant"] == next(iter(VARIANTS))}
    for variant in VARIANTS:
        mine = [one for one in runs if one["variant"] == variant]
        if mine:
            gains = [one[METRICS[0]] - first[one["seed"]][METRICS[0]] for one in mine if one["seed"] in first]
            cells = [rounds.spread([one[metric] for one in mine]) for metric in METRICS]
            rest = [rounds.spread([one[key] for one in mine], 1) for key in COSTS]
            yield [variant, mine[0]["px"], len(mine), *cells, rounds.spread(gains) if gains else "", *rest]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--root", type=Path)
    ask.add_argument("--drawn", type=int, default=0, help="draw this number of pictures instead")
    ask.add_argument("--mark", type=int, default=28, help="size in pixels of the marks in drawn pictures")
    ask.add_argument("--weights", help="a file, or a folder of <backbone>.safetensors; default: random weights")
    ask.add_argument("--backbone", default="tf_efficientnet_lite0")
    ask.add_argument("--size", type=int, default=112)
    ask.add_argument("--epochs", type=int, default=6)
    ask.add_argument("--batch", type=int, default=32)
    ask.add_argument("--lr", type=float, default=1e-3)
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--cache", type=Path, default=Path("mlruns/cache"))
    ask.add_argument("--out", type=Path, default=Path("mlruns/cache_size.jsonl"))
    given = ask.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    root = given.root or given.cache / f"drawn-{given.drawn}-{given.mark}"
    if given.drawn and not root.exists():
        draw(root, given.drawn, given.mark)
    run(given, root)
    print(rounds.hardware(given.device), "\n")
    headers = ["cache", "px", "n", *METRICS, "gain", "images/s", "CPU ms per image", "load"]
    print(rounds.table(headers, table(rounds.recorded(given.out))))


if __name__ == "__main__":
    main()
