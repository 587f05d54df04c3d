"""The search that benchmarks/sweep.py runs with several tools: its images, its ranges, and the gate."""

import argparse
import csv
import json
import math
import random
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plain
import torch

from trainers.config import Recipe
from trainers.data import demo, layouts
from trainers.data.table import Row, Table
from trainers.data_config import DataConfig
from trainers.evaluation.predict import predict
from trainers.loading.batches import Data
from trainers.train import train

FIXED = {**plain.USUAL, "min_area": 0.5, "brightness": 0.2}  # of the gate

SPACE = """\
study: question
data: {{layout: table, root: {root}}}
metric: overall_accuracy
budget: {{trials: {trials}}}
search: {search}
train:
  backbone: mobilenetv2_100
  backbone_args: {{pad_type: same}}
  {weights}
  normalize: {{mean: 0.5, std: 0.5}}
  image_size: {size}
  loss:
    choice:
      - {{name: cross_entropy, label_smoothing: {{uniform: [0.0, 0.2]}}}}
      - {{name: focal, gamma: {{uniform: [0.0, 4.0]}}}}
  optimizer: {{name: adamw, lr: {{loguniform: [1e-4, 1e-2]}}, weight_decay: {{loguniform: [1e-3, 0.3]}}}}
  schedule: {{name: cosine, warmup_epochs: {{choice: [0, 1]}}}}
  augment:
    {{horizontal_flip: 0.5, random_resized_crop: {{scale: [{{uniform: [0.2, 1.0]}}, 1.0]}},
    color_jitter: {{brightness: {{uniform: [0.0, 0.4]}}}}}}
  tta: {{flip: false, scales: [1.0]}}
  epochs: {epochs}
  selection: metric
  batch_size: 64
"""


# ------------------------------------------------------------------------------------------- the data
def part(given: argparse.Namespace) -> Path:
    """Copy the images of both lanes once, and return their folder with labels.csv."""
    target: Path = given.out / "data"
    if (target / "labels.csv").exists():
        return target
    if given.root is None:
        demo.draw(given.out / "drawn", images=(given.images, given.val + 200, 0))
        table = layouts.read(DataConfig(layout="challenge", root=str(given.out / "drawn")))
    else:
        table = layouts.read(DataConfig(layout="table", root=str(given.root)))
    (target / "images").mkdir(parents=True, exist_ok=True)
    lines = [["path", "split", *(category.name for category in table.categories)]]
    for number, (split, row) in enumerate(drawn(table, given.images, given.val)):
        name = f"images/{number:06d}{Path(row.path).suffix}"
        shutil.copyfile(table.root / row.path, target / name)
        answers = zip(table.categories, row.labels or (), strict=True)
        lines.append([name, split, *(category.classes[label] for category, label in answers)])
    with (target / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return target


def drawn(table: Table, images: int, val: int) -> list[tuple[str, Row]]:
    """Draw `images` of train and `val` of val. The rest of val and the labelled test images become test."""
    rng = random.Random(0)
    mine = {split: [row for row in table.split(split) if row.labels] for split in ("train", "val", "test")}
    for rows in mine.values():
        rng.shuffle(rows)
    test = mine["val"][val:] + mine["test"]
    parts = {"train": mine["train"][:images], "val": mine["val"][:val], "test": test}
    return [(split, row) for split, rows in parts.items() for row in rows]


@torch.inference_mode()
def right(images: np.ndarray, test: plain.Split, size: int, weights: Path) -> np.ndarray:
    """Return the share of right answers for each of the decoded test images, by a network of the plain script."""
    sizes = [len(classes) for classes in test.classes]
    net = plain.Net("", sum(sizes)).eval()
    net.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    shares = []
    for batch, labels in plain.loader(images, test.labels, plain.plain(size), "cpu", train=False):
        found = torch.stack([part.argmax(1) for part in net(batch).split(sizes, 1)], 1)
        shares.append((found == labels).float().mean(1))
    return torch.cat(shares).numpy()


def answers(data: Data, logits: np.ndarray) -> np.ndarray:
    """Return the share of right answers for each test image."""
    parts = np.split(logits, np.cumsum(data.sizes)[:-1], axis=1)
    found = np.stack([part.argmax(1) for part in parts], axis=1)
    shares: np.ndarray = (found == data.labels(data.table.indices("test"))).mean(1)
    return shares


def scored(shares: np.ndarray) -> tuple[float, float]:
    """Return mean and standard error over images."""
    return float(shares.mean()), float(shares.std(ddof=1) / math.sqrt(len(shares)))


def space(given: argparse.Namespace, data: Path, trials: int, seed: int) -> str:
    weights = f"weights: {given.weights}" if given.weights else "pretrained: false"
    search = given.search.replace("SEED", str(seed))
    return SPACE.format(
        root=data, trials=trials, search=search, weights=weights, size=given.size, epochs=given.epochs
    )


# ------------------------------------------------------------------------------------------- the gate
def gate(given: argparse.Namespace, data: Path) -> tuple[bool, str]:
    """Train one fixed configuration both ways with several seeds, and compare test accuracy, labels and network."""
    kept = given.out / "gate.json"
    if not kept.exists():
        kept.write_text(json.dumps([fixed(given, data, seed) for seed in range(given.gate)]))
    found = json.loads(kept.read_text())
    ours, theirs = (statistics.mean(one[lane][0] for one in found) for lane in ("sweep", "plain"))
    error = math.sqrt(2) * math.hypot(statistics.mean(one["sweep"][1] for one in found), _seeds(found))
    equal = found[0]["labels"][0] == found[0]["labels"][1] and found[0]["parameters"][0] == found[0]["parameters"][1]
    good = equal and abs(ours - theirs) <= 2 * error
    seen = f"the same labels, {found[0]['parameters'][0]:,} parameters" if equal else "NOT the same labels or network"
    words = f"test {ours:.4f} by sweep, {theirs:.4f} by hand ({len(found)} seeds, 2 x {error:.4f} allowed); {seen}"
    return good, words


def _seeds(found: list[dict[str, Any]]) -> float:
    """Return the standard error of a lane's mean over seeds, pooled over both lanes; 0 for a single seed."""
    if len(found) < 2:
        return 0.0
    spread = [statistics.variance([one[lane][0] for one in found]) for lane in ("sweep", "plain")]
    return math.sqrt(statistics.mean(spread) / len(found))


def fixed(given: argparse.Namespace, data: Path, seed: int) -> dict[str, Any]:
    out = given.out / f"gate-{seed}"
    out.mkdir(exist_ok=True)
    hand = plain.Given(data, out, given.weights, 1, given.epochs, given.size, seed, device=given.device)
    plain.prepare(hand)
    for _ in plain.Training(hand).run(FIXED, 0):
        pass
    splits = plain.read(data)
    theirs = scored(right(plain.decoded(splits["test"], given.size), splits["test"], given.size, out / "trials/0.pt"))
    weights = {"weights": given.weights} if given.weights else {"pretrained": False}
    loss = {"name": "cross_entropy", "label_smoothing": FIXED["smoothing"]}
    recipe = Recipe.model_validate(
        {
            "data": {"layout": "table", "root": str(data), "size": -(-round(1.14 * given.size) // 32) * 32},
            "train": {
                "backbone": "mobilenetv2_100",
                "backbone_args": {"pad_type": "same"},
                **weights,
                "normalize": {"mean": 0.5, "std": 0.5},
                "image_size": given.size,
                "loss": loss,
                "optimizer": {"name": "adamw", "lr": FIXED["lr"], "weight_decay": FIXED["weight_decay"]},
                "schedule": {"name": "cosine", "warmup_epochs": FIXED["warmup"]},
                "augment": {
                    "horizontal_flip": 0.5,
                    "random_resized_crop": {"scale": (FIXED["min_area"], 1.0)},
                    "color_jitter": {"brightness": 0.2},
                },
                "epochs": given.epochs,
                "selection": "metric",
                "batch_size": plain.BATCH,
                "seed": seed,
            },
        }
    )
    opened = Data.open(recipe.data, out / "cache")
    list(train(recipe, opened, out / "run", device=given.device))
    logits = predict(recipe, opened, out / "run/model.safetensors", split="test")
    ours = scored(answers(opened, logits))
    read = [int(split.labels.sum()) for split in splits.values()]
    seen = [int(opened.labels(opened.table.indices(name)).sum()) for name in splits]
    count = sum(p.numel() for p in plain.Net("", sum(opened.sizes)).parameters())
    mine = sum(tensor.size for name, tensor in _tensors(out / "run/model.safetensors") if _learnt(name))
    return {"sweep": ours, "plain": theirs, "labels": [seen, read], "parameters": [mine, count]}


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    from safetensors.numpy import load_file

    yield from load_file(path).items()


def _learnt(name: str) -> bool:
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
