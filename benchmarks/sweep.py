"""The same question asked twice: 50 trials by `sweep run`, and by a plain script with TPE and the median pruner.

    python benchmarks/sweep.py --root DATA --weights FILE --out FOLDER [--rounds 3] [--quick] [--device cpu]

DATA is a data set in the table layout; without it one is drawn. A part of its images is copied to FOLDER: train, val,
and all that is left with labels as test. Both get the same ranges, epochs and weights, each the whole machine, in
turn. Every trial's best epoch is judged on test afterwards. What is compared is the test accuracy of the best trial
by val so far, against the seconds since the command was given, imports and decoding included.

The gate: one fixed configuration trained both ways must agree on test within two standard errors, and both must see
the same number of images. Finished rounds are kept in FOLDER; the same command goes on.
"""

import argparse
import csv
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plain
import rounds
import torch

from trainers.config import DataConfig, Recipe
from trainers.data import demo, layouts
from trainers.data.batches import Data
from trainers.data.rows import Row, Table
from trainers.predict import predict
from trainers.train import train

HERE = Path(__file__).parent
FIXED = {"lr": 2e-3, "weight_decay": 0.05, "loss": "cross_entropy", "smoothing": 0.1, "min_area": 0.5}
FIXED |= {"brightness": 0.2, "warmup": 1}
FEW = 10  # trials after which an eager user stops

SPACE = """\
study: question
data: {{layout: table, root: {root}}}
goal: overall_accuracy
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
    {{flip: 0.5, crop: resized, min_area: {{uniform: [0.2, 1.0]}}, brightness: {{uniform: [0.0, 0.4]}}}}
  tta: {{flip: false, scales: [1.0]}}
  epochs: {epochs}
  batch_size: 64
"""


@dataclass(frozen=True)
class Point:
    """A trial that has ended: when, what it is worth on val, and its right answers on test, a share an image."""

    seconds: float
    val: float
    test: float
    error: float  # standard error of `test`
    epochs: int


# ------------------------------------------------------------------------------------------- the data
def part(given: argparse.Namespace) -> Path:
    """The images of both lanes, copied once: labels.csv with path, split, and a column a category."""
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
    """So many of train and of val, and the rest of val with the labelled test images as test."""
    rng = random.Random(0)
    mine = {split: [row for row in table.split(split) if row.labels] for split in ("train", "val", "test")}
    for rows in mine.values():
        rng.shuffle(rows)
    test = mine["val"][val:] + mine["test"]
    parts = {"train": mine["train"][:images], "val": mine["val"][:val], "test": test}
    return [(split, row) for split, rows in parts.items() for row in rows]


# ------------------------------------------------------------------------------------------- the lanes
def by_hand(given: argparse.Namespace, data: Path, out: Path, seed: int) -> list[Point]:
    """The plain script, in a process of its own."""
    words = [sys.executable, str(HERE / "plain.py"), "--root", str(data), "--out", str(out), "--seed", str(seed)]
    words += ["--weights", given.weights, "--trials", str(given.trials), "--epochs", str(given.epochs)]
    words += ["--size", str(given.size), "--device", given.device, "--began", str(time.time())]
    subprocess.run(words, check=True)
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    test = plain.read(data)["test"]
    return [
        Point(
            line["seconds"], line["value"], *scored(right(given, test, out / f"{line['trial']}.pt")), line["epochs"]
        )
        for line in lines
    ]


@torch.inference_mode()
def right(given: argparse.Namespace, test: plain.Split, weights: Path) -> np.ndarray:
    """The share of right answers for each test image, by the plain script's network."""
    sizes = [len(classes) for classes in test.classes]
    net = plain.Net("", sum(sizes)).eval()
    net.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    shares = []
    for images, labels in plain.loader(test, plain.plain(given.size), "cpu", train=False):
        found = torch.stack([part.argmax(1) for part in net(images).split(sizes, 1)], 1)
        shares.append((found == labels).float().mean(1))
    return torch.cat(shares).numpy()


def by_sweep(given: argparse.Namespace, data: Path, out: Path, seed: int) -> list[Point]:
    """`sweep run`, as a user types it."""
    out.mkdir(parents=True)
    (out / "question.yaml").write_text(space(given, data, given.trials, seed))
    began = time.time()
    words = [sys.executable, "-m", "sweeper.cli", "run", str(out / "question.yaml"), "--devices", given.device]
    slots = ["--slots", given.slots] if given.device == "cpu" else ["--slots", "auto"]
    place = {"SWEEP_HOME": str(out / "mlruns"), "PYTHONPATH": str(HERE.parent)}
    subprocess.run([*words, *slots], check=True, cwd=out, env={**os.environ, **place}, stdout=subprocess.DEVNULL)
    points = []
    for folder in sorted((out / "mlruns/studies/question/trials").iterdir()):
        result = json.loads((folder / "result.json").read_text())
        recipe = Recipe.model_validate(json.loads((folder / "config.json").read_text())["recipe"])
        table = Data.open(recipe.data, out / "mlruns/cache")
        logits = predict(recipe, table, folder / "best.safetensors", split="test")
        ended = (folder / "result.json").stat().st_mtime
        points.append(Point(ended - began, result["value"], *scored(answers(table, logits)), result["epochs"]))
    return points


def answers(data: Data, logits: np.ndarray) -> np.ndarray:
    """The share of right answers for each test image."""
    parts = np.split(logits, np.cumsum(data.sizes)[:-1], axis=1)
    found = np.stack([part.argmax(1) for part in parts], axis=1)
    shares: np.ndarray = (found == data.labels(data.table.indices("test"))).mean(1)
    return shares


def scored(shares: np.ndarray) -> tuple[float, float]:
    """Mean and standard error over images."""
    return float(shares.mean()), float(shares.std(ddof=1) / math.sqrt(len(shares)))


def space(given: argparse.Namespace, data: Path, trials: int, seed: int) -> str:
    weights = f"weights: {given.weights}" if given.weights else "pretrained: false"
    search = given.search.replace("SEED", str(seed))
    return SPACE.format(
        root=data, trials=trials, search=search, weights=weights, size=given.size, epochs=given.epochs
    )


# ------------------------------------------------------------------------------------------- the gate
def gate(given: argparse.Namespace, data: Path) -> tuple[bool, str]:
    """One fixed configuration both ways, several seeds: test accuracy and images seen an epoch."""
    kept = given.out / "gate.json"
    if not kept.exists():
        kept.write_text(json.dumps([fixed(given, data, seed) for seed in range(given.gate)]))
    found = json.loads(kept.read_text())
    ours, theirs = (statistics.mean(one[lane][0] for one in found) for lane in ("sweep", "plain"))
    error = math.sqrt(2) * math.hypot(statistics.mean(one["sweep"][1] for one in found), _seeds(found))
    equal = found[0]["seen"][0] == found[0]["seen"][1] and found[0]["parameters"][0] == found[0]["parameters"][1]
    good = equal and abs(ours - theirs) <= 2 * error
    seen = f"{found[0]['seen'][0]} images an epoch, {found[0]['parameters'][0]:,} parameters"
    words = f"test {ours:.4f} by sweep, {theirs:.4f} by hand ({len(found)} seeds, 2 x {error:.4f} allowed); {seen}"
    return good, words


def _seeds(found: list[dict[str, Any]]) -> float:
    """Standard error of a lane's mean over its seeds, of both lanes together; 0 for a single seed."""
    if len(found) < 2:
        return 0.0
    spread = [statistics.variance([one[lane][0] for one in found]) for lane in ("sweep", "plain")]
    return math.sqrt(statistics.mean(spread) / len(found))


def fixed(given: argparse.Namespace, data: Path, seed: int) -> dict[str, Any]:
    out = given.out / f"gate-{seed}"
    out.mkdir(exist_ok=True)
    args = argparse.Namespace(**{**vars(given), "root": data, "out": out, "seed": seed, "began": 0.0})
    hand = plain.Sweep(args)
    values = []
    for value in hand.train(FIXED, seed):
        values.append(value)
        if value == max(values):
            (out / "new.pt").replace(out / "best.pt")
    theirs = scored(right(given, hand.splits["test"], out / "best.pt"))
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
                "augment": {"flip": 0.5, "crop": "resized", "min_area": FIXED["min_area"], "brightness": 0.2},
                "epochs": given.epochs,
                "batch_size": plain.BATCH,
                "seed": seed,
            },
        }
    )
    opened = Data.open(recipe.data, out / "cache")
    epochs = list(train(recipe, opened, out / "run", device=given.device))
    logits = predict(recipe, opened, out / "run/best.safetensors", split="test")
    ours = scored(answers(opened, logits))
    whole = len(opened.table.split("train")) // plain.BATCH * plain.BATCH
    theirs_seen = len(hand.splits["train"].paths) // plain.BATCH * plain.BATCH
    count = sum(p.numel() for p in plain.Net("", sum(opened.sizes)).parameters())
    mine = sum(tensor.size for name, tensor in _tensors(out / "run/best.safetensors") if _learnt(name))
    assert len(epochs) == len(values) == given.epochs
    return {"sweep": ours, "plain": theirs, "seen": [whole, theirs_seen], "parameters": [mine, count]}


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    from safetensors.numpy import load_file

    yield from load_file(path).items()


def _learnt(name: str) -> bool:
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))


# ------------------------------------------------------------------------------------------- the answer
def curve(points: list[Point]) -> list[tuple[float, Point]]:
    """The best trial by val so far, at each time that it changed."""
    found: list[tuple[float, Point]] = []
    for point in sorted(points, key=lambda one: one.seconds):
        if not found or point.val > found[-1][1].val:
            found.append((point.seconds, point))
    return found


def reached(points: list[Point], least: float) -> float:
    """Seconds from which on the best so far is worth at least so much on test; infinite if it never is."""
    since = math.inf
    for seconds, point in curve(points):
        since = min(since, seconds) if point.test >= least else math.inf
    return since


def first(points: list[Point], count: int) -> tuple[float, Point]:
    """When so many trials had ended, and the best of them by val."""
    some = sorted(points, key=lambda one: one.seconds)[:count]
    return some[-1].seconds, max(some, key=lambda one: one.val)


def rows(found: dict[str, list[list[Point]]]) -> Iterator[list[object]]:
    """A line a round."""
    for number, (ours, theirs) in enumerate(zip(found["sweep"], found["plain"], strict=True)):
        (end, best), (mine, own) = first(theirs, len(theirs)), first(ours, len(ours))
        few, early = first(ours, FEW)
        goal = best.test - best.error
        there, back = reached(ours, goal), reached(theirs, goal)
        cells = [f"{end:.0f} s", f"{best.test:.4f} ± {best.error:.4f}", f"{back:.0f} s", f"{mine:.0f} s"]
        cells += [f"{own.test:.4f}", f"{few:.0f} s", f"{early.test:.4f}", f"{there:.0f} s"]
        yield [number, *cells, f"{there / end:.3f}", f"{there / back:.2f}"]


HEADERS = [
    "round",
    "by hand, all trials",
    "its test",
    "as good from",
    "sweep, all trials",
    "its test",
    f"sweep, {FEW} trials",
    "its test",
    "as good from",
    "over all by hand",
    "over as good by hand",
]


def drawing(found: dict[str, list[list[Point]]], path: Path) -> None:
    """The learning curves of both lanes: test accuracy of the best by val so far, over time."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for lane, colour in (("plain", "#c05020"), ("sweep", "#2060a0")):
        for number, points in enumerate(found[lane]):
            steps = [*curve(points), (max(p.seconds for p in points), curve(points)[-1][1])]
            label = {"plain": "plain script", "sweep": "sweep run"}[lane] if number == 0 else None
            axes.step([s for s, _ in steps], [p.test for _, p in steps], where="post", color=colour, label=label)
    axes.set(xlabel="seconds since the command", ylabel="test accuracy of the best by val", xscale="log")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def known(given: argparse.Namespace, data: Path) -> dict[str, list[list[Point]]]:
    """Every round of both lanes, those that are missing run now, in turn."""
    found: dict[str, list[list[Point]]] = {"plain": [], "sweep": []}
    for number in range(given.rounds):
        lanes = [("plain", by_hand), ("sweep", by_sweep)]
        for lane, run in lanes if number % 2 == 0 else lanes[::-1]:
            kept = given.out / f"{lane}-{number}.json"
            if not kept.exists():
                shutil.rmtree(given.out / f"{lane}-{number}", ignore_errors=True)
                points = run(given, data, given.out / f"{lane}-{number}", number)
                kept.write_text(json.dumps([asdict(point) for point in points]))
            found[lane].append([Point(**one) for one in json.loads(kept.read_text())])
    return found


def settings() -> argparse.Namespace:
    ask = rounds.arguments(__doc__ or "")
    ask.formatter_class = argparse.RawDescriptionHelpFormatter
    ask.add_argument("--root", type=Path, default=None)
    ask.add_argument("--weights", default="")
    ask.add_argument("--out", type=Path, default=Path("mlruns/benchmark-sweep"))
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--trials", type=int, default=50)
    ask.add_argument("--epochs", type=int, default=4)
    ask.add_argument("--size", type=int, default=40)
    ask.add_argument("--images", type=int, default=800)
    ask.add_argument("--val", type=int, default=300)
    ask.add_argument("--gate", type=int, default=3, help="seeds of the gate")
    ask.add_argument("--slots", default=str(max(1, len(os.sched_getaffinity(0)))))
    ask.add_argument("--search", default="{seed: SEED}", help="the key `search` of the space")
    given = ask.parse_args()
    if given.quick:
        given.rounds, given.trials, given.epochs, given.images, given.val = 1, 6, 3, 480, 160
        given.gate = 2
    given.out = given.out.absolute() / ("quick" if given.quick else "whole")
    given.weights = str(Path(given.weights).absolute()) if given.weights else ""
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def main() -> None:
    given = settings()
    data = part(given)
    good, words = gate(given, data)
    found = known(given, data)
    print(rounds.hardware(given.device))
    print(f"gate: {'held' if good else 'BROKEN'}: {words}\n")
    print(
        f"{given.trials} trials of {given.epochs} epochs, {given.images} images of {given.size} pixels; as good: the"
        " best by val so far is, from then on, within a standard error of what the script found in all its trials\n"
    )
    lines = list(rows(found))
    print(rounds.table(HEADERS, lines))
    ratio = statistics.median(float(str(line[-2])) for line in lines)
    print(f"\nmedian ratio {ratio:.3f}, goal at most 0.2: {rounds.verdict(ratio, 0.2)}")
    drawing(found, given.out / "curves.svg")
    print(f"curves: {given.out / 'curves.svg'}", file=sys.stderr)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
