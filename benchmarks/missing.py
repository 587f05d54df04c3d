"""Measure the cost of missing answers: full labels, a share of the cells blank, and only the complete rows of those.

    python benchmarks/missing.py --root DATA --weights FILE.safetensors --out FOLDER [--quick]

DATA is a table with splits. A MobileNetV2 with its family's defaults is trained on train. Blanks are drawn at random
for each seed, in train alone. The last epoch is scored on val and test together, without correction. FOLDER
keeps the scores of each run. Runs that are there are not trained again.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rounds import hardware, on_photographs, photographs, spread
from rounds import table as markdown

from sweeper.space import defaults
from trainers.config import Recipe
from trainers.data.table import MISSING, Row, Table
from trainers.data_config import DataConfig
from trainers.evaluation import metrics
from trainers.evaluation.predict import predict
from trainers.loading.batches import Data
from trainers.support import device
from trainers.train import train

GOAL = "mean_class_accuracy"
CASES = ("full labels", "blanks", "complete rows")


def with_blanks(table: Table, share: float, seed: int) -> list[Row]:
    """Return the rows with a share of train's labels missing."""
    rng = np.random.default_rng(seed)
    return [_blank(row, rng.random(len(table.categories)) < share) for row in table.rows]


def _blank(row: Row, missing: np.ndarray) -> Row:
    if row.split != "train" or row.labels is None:
        return row
    labels = tuple(MISSING if gone else label for label, gone in zip(row.labels, missing, strict=True))
    return replace(row, labels=None if max(labels) == MISSING else labels)


def _incomplete(row: Row) -> bool:
    return row.split == "train" and (row.labels is None or MISSING in row.labels)


def labelled(data: Data, name: str, share: float, seed: int) -> Data:
    """Return the data of one case and seed. Dropped rows become a separate split, so the cache stays as it is."""
    rows = list(data.table.rows) if name == CASES[0] else with_blanks(data.table, share, seed)
    if name == CASES[2]:
        rows = [replace(row, split="dropped") if _incomplete(row) else row for row in rows]
    return Data(replace(data.table, rows=tuple(rows)), data.cache)


def measured(given: argparse.Namespace, data: Data, name: str, seed: int) -> dict[str, float]:
    """Train once, and return both accuracies and the number of training images."""
    of = labelled(data, name, given.share, seed)
    config = {
        "backbone": "mobilenetv2_100",
        "backbone_args": {"pad_type": "same"},
        "weights": str(given.weights),
        "normalize": {"mean": 0.5, "std": 0.5},
        "image_size": given.image_size,
        "epochs": given.epochs,
        "batch_size": 64,
        "seed": seed,
    }
    recipe = Recipe(data=DataConfig(root="x"), metric=GOAL, train=defaults.filled(config, GOAL))
    with tempfile.TemporaryDirectory() as folder:
        for _ in train(recipe, of, Path(folder)):
            pass
        weights = Path(folder) / "model.safetensors"
        logits = np.concatenate([predict(recipe, of, weights, split=split) for split in ("val", "test")])
    labels = np.concatenate([of.labels(of.table.indices(split)) for split in ("val", "test")])
    found = metrics.scores(logits, labels, of.categories, loss=0.0)
    images = len(of.table.indices("train"))
    return {GOAL: found.value(GOAL), "overall_accuracy": found.value("overall_accuracy"), "images": images}


def runs(given: argparse.Namespace, data: Data) -> Iterator[tuple[str, dict[str, float]]]:
    for seed in range(given.seeds):
        for name in CASES:
            path: Path = given.out / f"{name.replace(' ', '-')}-{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(measured(given, data, name, seed)))
            yield name, json.loads(path.read_text())


def line(name: str, found: list[dict[str, float]]) -> list[object]:
    """Return a line of the table: means over seeds with standard errors."""
    images = round(statistics.mean(one["images"] for one in found))
    return [name, images, *(spread([one[metric] for one in found]) for metric in (GOAL, "overall_accuracy"))]


def main() -> None:
    ask = on_photographs(__doc__ or "", out="mlruns/missing")
    ask.add_argument("--share", type=float, default=0.25, help="share of train's cells that are blank")
    ask.add_argument("--image-size", type=int, default=96)
    ask.add_argument("--epochs", type=int, default=6)
    ask.add_argument("--seeds", type=int, default=3)
    given = photographs(ask)
    if given.quick:
        given.seeds, given.epochs, given.image_size = 2, 1, 32
    device.use_threads(1)
    side = -(-round(1.14 * given.image_size) // 32) * 32
    data = Data.open(DataConfig(layout="table", root=str(given.root), size=side), given.cache)
    found: dict[str, list[dict[str, float]]] = {}
    for name, scores in runs(given, data):
        found.setdefault(name, []).append(scores)
    print(hardware(given.device))
    header = ["training labels", "images", "mean class accuracy", "overall accuracy"]
    print(markdown(header, (line(name, each) for name, each in found.items())))


if __name__ == "__main__":
    main()
