"""Whether ranks hold: on frozen features, and after few epochs, against the full training.

    python benchmarks/rungs.py --root ../shared/data/clothing --weights ../shared/weights/FILE.safetensors

Random configurations of a sensible space are trained to their end, without pruning. Known of each are also the rungs:
the best value of its first 1, 2, ... epochs, and its score on frozen features (trainers/probe.py). For every rung a
table has Kendall's tau with the full training and its bootstrap error over configurations, how often a cut there
would have kept the best of 16, and the cost. The learning rate alone is there as a control, and a second table has
only the configurations with rates that one would choose among. What is in --out is not done again, so the same
command continues; --table prints what there is. --quick, or no photographs, means drawn garments and a tiny network
of random weights.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rounds
import torch
from scipy.stats import kendalltau
from torch import nn

from trainers import losses, optim, stacked
from trainers.config import DataConfig, Goal, Recipe, TrainConfig
from trainers.data import demo
from trainers.data.batches import Data
from trainers.features import features
from trainers.models import heads
from trainers.probe import FOLDER, probe
from trainers.train import train

GOALS: tuple[Goal, ...] = ("overall_accuracy", "mean_class_accuracy")
BASE: dict[str, Any] = {"schedule": {"name": "cosine", "warmup_epochs": 1}, "batch_size": 64}
PHOTOGRAPHS: dict[str, Any] = {
    "backbone": "mobilenetv2_100",
    "backbone_args": {"pad_type": "same"},
    "normalize": {"mean": 0.5, "std": 0.5},
    "image_size": 48,
}
DRAWN: dict[str, Any] = {"backbone": "test_resnet", "pretrained": False, "image_size": 48}
AUGMENT: dict[str, dict[str, Any]] = {
    "none": {"flip": 0, "crop": "none"},
    "light": {"flip": 0.5, "crop": "random"},
    "medium": {"crop": "resized", "min_area": 0.5, "brightness": 0.2, "contrast": 0.2},
    "strong": {"crop": "resized", "policy": "trivial", "erase": 0.25},
}
PASSES = (2, 5, 10, 20)  # of the heads over the features, besides as many as the full training has epochs
OF, DRAWS = 16, 1000  # configurations in a set that a cut is tried on, and sets
USUAL = 1e-3  # rates from here on are those that one would choose among when fine-tuning with AdamW
TOLERANCE = 1e-4  # between heads that train together and alone, relative to the largest logit


def drawn(number: int) -> dict[str, Any]:
    """The values of configuration `number`: the same ones whenever it is asked for."""
    rng = np.random.default_rng([7, number])
    smoothing, gamma = float(rng.uniform(0, 0.2)), float(rng.uniform(0, 4))
    kinds: list[dict[str, Any]] = [
        {"name": "cross_entropy", "label_smoothing": smoothing},
        {"name": "focal", "gamma": gamma},
        {"name": "asymmetric", "gamma_negative": gamma},
        {"name": "logit_adjusted", "tau": gamma / 4, "label_smoothing": smoothing},
    ]
    rates = {
        "lr": float(10 ** rng.uniform(-4, -2)),
        "weight_decay": float(10 ** rng.uniform(-3, -0.5)),
        "layer_decay": float(rng.uniform(0.7, 1)),
    }
    return {
        "loss": kinds[rng.integers(len(kinds))],
        "optimizer": {"name": "adamw", **rates},
        "augment": AUGMENT[str(rng.choice(list(AUGMENT)))],
    }


# ---------------------------------------------------------------------------------------- measuring
class Bench:
    """What one call measures on: the data, the setting in words, and the recipes."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.device = given, torch.device(given.device)
        self.base = BASE | PHOTOGRAPHS | {"weights": given.weights} if given.photographs else BASE | DRAWN
        root = {"layout": "table", "root": given.root} if given.photographs else {"root": str(drawn_garments(given))}
        self.config = DataConfig(size=64, **root)
        self.data = part(Data.open(self.config, given.cache), given.images)
        where = f"{self.base['image_size']} px, {given.images} images, {given.epochs} epochs"
        self.setting = f"{Path(root['root']).name}, {self.base['backbone']}, {where}"

    def recipe(self, number: int, seed: int = 0, goal: Goal = GOALS[0]) -> Recipe:
        config = {**self.base, **drawn(number), "epochs": self.given.epochs, "seed": seed}
        return Recipe(data=self.config, goal=goal, train=config)

    def full(self, number: int, seed: int) -> dict[str, Any]:
        """Both accuracies on val after every epoch of the full training, and its CPU seconds."""
        with tempfile.TemporaryDirectory() as folder:
            epochs: list[Any] = []
            run = train(self.recipe(number, seed), self.data, Path(folder), device=self.given.device)
            seconds = rounds.cpu(lambda: epochs.extend(run))
        found = {goal: [getattr(epoch.val, goal) for epoch in epochs] for goal in GOALS}
        return {"number": number, "seed": seed, "seconds": seconds, "epochs": found}

    def probed(self, passes: int) -> dict[str, Any]:
        """The scores of all configurations on frozen features by goal, and the CPU seconds of one goal's."""
        found: dict[str, list[float | None]] = {}
        for goal in GOALS:
            asked = [self.recipe(number, goal=goal) for number in range(self.given.configurations)]
            verdicts: list[Any] = []
            seconds = rounds.cpu(
                lambda asked=asked, into=verdicts: into.extend(
                    probe(asked, self.data, self.given.cache, self.device, passes)
                )
            )
            found[goal] = [verdict.score for verdict in verdicts]
        return {"probe": passes, "seconds": seconds, "scores": found}

    def features(self) -> dict[str, Any]:
        """The CPU seconds of the features."""
        with tempfile.TemporaryDirectory() as folder:
            seconds = rounds.cpu(lambda: features(self.recipe(0), self.data, Path(folder), self.device))
        return {"features": seconds}


def drawn_garments(given: argparse.Namespace) -> Path:
    root: Path = given.cache / "garments"
    if not root.exists():
        demo.draw(root, images=(given.images, 200, 10), seed=0)
    return root


def part(data: Data, images: int) -> Data:
    """The data with so many of the training images, drawn once; val stays whole."""
    train_rows = data.table.indices("train")
    kept = set(np.random.default_rng(0).permutation(train_rows)[:images].tolist())
    spare = set(train_rows) - kept
    rows = tuple(replace(row, split="spare") if n in spare else row for n, row in enumerate(data.table.rows))
    return Data(replace(data.table, rows=rows), data.cache)


# --------------------------------------------------------------------------------------------- gate
def gate(bench: Bench, count: int = 8, steps: int = 60) -> float:
    """The largest difference of logits between heads trained together and alone, over the largest logit.

    Alone means torch's own optimizer and the losses of trainers/losses.py, on the same batches.
    """
    configs = sorted((bench.recipe(n).train for n in range(count)), key=lambda one: one.loss.name)
    found = features(bench.recipe(0), bench.data, bench.given.cache / FOLDER, bench.device)
    rows = bench.data.table.indices("train")
    counts, labels = bench.data.counts(rows), torch.from_numpy(bench.data.labels(rows)).to(bench.device)
    chunks = [torch.arange(64) + 64 * n for n in range(steps)]
    batches = [(found.train[chunk % len(rows), 0].float(), labels[chunk % len(rows)]) for chunk in chunks]
    val, width = found.val.float(), found.val.shape[1]
    stack = stacked.Heads(configs, width, bench.data.names, counts, bench.device)
    for seen, true in batches:
        stack.step(seen, true, torch.ones(count, device=bench.device))
    together = stack.evaluate(val)
    apart = torch.stack([alone(bench, config, batches, counts)(val) for config in configs])
    return float((together - apart).abs().max() / apart.abs().max())


def alone(bench: Bench, config: TrainConfig, batches: Sequence[Any], counts: losses.Counts) -> nn.Module:
    torch.manual_seed(config.seed)
    head = heads.build(config.head, batches[0][0].shape[1], bench.data.sizes).to(bench.device)
    optimizer = optim.build(config.optimizer, nn.Module(), head)
    objective = losses.build(config.loss, bench.data.names, counts, bench.device)
    for seen, true in batches:
        optimizer.zero_grad()
        objective(head(seen), true).mean().backward()
        optimizer.step()
    return head.requires_grad_(False)


# -------------------------------------------------------------------------------------------- table
def table(lines: Sequence[Mapping[str, Any]], goal: Goal, least: float) -> Iterator[Sequence[object]]:
    """A row a rung over configurations of at least this rate: n, tau, how often a cut keeps the best, the cost."""
    runs = {(one["number"], one["seed"]): one for one in lines if "number" in one}
    rates = {number: drawn(number)["optimizer"]["lr"] for number, _ in runs}
    numbers = sorted(number for number, seed in runs if seed == 0 and rates[number] >= least)
    full = np.array([max(runs[number, 0]["epochs"][goal]) for number in numbers])
    seconds = float(np.mean([runs[number, 0]["seconds"] for number in numbers]))
    yield row("the learning rate alone", np.array([rates[number] for number in numbers]), full, 0.0)
    before = next((one["features"] for one in lines if "features" in one), 0.0)
    for one in sorted((one for one in lines if "probe" in one), key=lambda one: one["probe"]):
        scores = np.array([score(one["scores"][goal], number) for number in numbers])
        share = (one["seconds"] + before) / len(one["scores"][goal]) / seconds
        yield row(f"frozen features, {one['probe']} passes", scores, full, share)
    epochs = len(runs[numbers[0], 0]["epochs"][goal])
    for k in range(1, epochs):
        values = np.array([max(runs[number, 0]["epochs"][goal][:k]) for number in numbers])
        yield row(f"{k} of {epochs} epochs", values, full, k / epochs)
    twice = [at for at, number in enumerate(numbers) if (number, 1) in runs]
    if len(twice) > 2:
        again = np.array([max(runs[numbers[at], 1]["epochs"][goal]) for at in twice])
        yield row("all of it, another seed", again, full[twice], 1.0)


def score(scores: Sequence[float | None], number: int) -> float:
    """A head that diverged, or a configuration that nobody probed, ranks last."""
    found = scores[number] if number < len(scores) else None
    return -1.0 if found is None else found


def row(name: str, rung: np.ndarray, full: np.ndarray, cost: float) -> list[object]:
    rng = np.random.default_rng(0)
    again = [rng.integers(len(full), size=len(full)) for _ in range(DRAWS)]
    error = np.nanstd([kendalltau(rung[one], full[one]).statistic for one in again])
    cuts = [f"{kept(rung, full, top, share):.0%}" for top in (1, 3) for share in (1 / 2, 1 / 3)]
    tau = f"{kendalltau(rung, full).statistic:.2f} ± {error:.2f}"
    return [name, len(full), tau, *cuts, f"{cost:.1%}"]


def kept(rung: np.ndarray, full: np.ndarray, top: int, share: float) -> float:
    """Which share of the `top` best survives a cut to `share` of a set, over many sets drawn at random."""
    rng, size = np.random.default_rng(0), min(OF, len(full))
    found = []
    for _ in range(DRAWS):
        some = rng.choice(len(full), size=size, replace=False)
        best = some[np.argsort(-full[some], kind="stable")[:top]]
        through = some[np.argsort(-rung[some], kind="stable")[: round(share * size)]]
        found.append(np.isin(best, through).mean())
    return float(np.mean(found))


HEADERS = ("rung", "n", "tau", "best in 1/2", "best in 1/3", "best 3 in 1/2", "best 3 in 1/3", "cost")


def known(out: Path, setting: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return [line for line in lines if line["setting"] == setting]


def measure(bench: Bench) -> None:
    """Do what the output lacks, seed by seed; each thing is a line of the output at once."""
    given, lines = bench.given, known(bench.given.out, bench.setting)

    def keep(line: Mapping[str, Any]) -> None:
        with given.out.open("a") as file:
            file.write(json.dumps({"setting": bench.setting, **line}) + "\n")

    done = {(one["number"], one["seed"]) for one in lines if "number" in one}
    for seed in range(given.seeds):
        for number in range(given.configurations):
            if (number, seed) not in done:
                keep(bench.full(number, seed))
                print(f"configuration {number}, seed {seed}", flush=True)
    if not any("features" in one for one in lines):
        keep(bench.features())
    probed = {
        one["probe"] for one in lines if "probe" in one and len(one["scores"][GOALS[0]]) >= given.configurations
    }
    for passes in sorted({*PASSES, given.epochs} - probed):
        keep(bench.probed(passes))


def main() -> None:
    ask = rounds.arguments(__doc__ or "")
    ask.add_argument("--root", default="../shared/data/clothing")
    ask.add_argument("--weights", default="../shared/weights/mobilenetv2_100_same.safetensors")
    ask.add_argument("--cache", type=Path, default=Path("mlruns/cache"))
    ask.add_argument("--out", type=Path, default=Path("mlruns/rungs.jsonl"))
    ask.add_argument("--configurations", type=int, default=48)
    ask.add_argument("--images", type=int, default=1500, help="to train on")
    ask.add_argument("--epochs", type=int, default=6)
    ask.add_argument("--seeds", type=int, default=1, help="2 shows how far the full training agrees with itself")
    ask.add_argument("--table", action="store_true", help="measure nothing")
    given = ask.parse_args()
    given.photographs = Path(given.root).exists() and Path(given.weights).exists() and not given.quick
    if not given.photographs:
        print("drawn garments and random weights: this shows that the script works, nothing about photographs")
    if given.quick:
        given.configurations, given.images, given.epochs = 6, 200, 3
    given.out.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(given)
    if not given.table:
        difference = gate(bench)
        print(f"heads together and alone differ by {difference:.1e} of the largest logit", flush=True)
        if difference >= TOLERANCE:
            sys.exit(f"gate: heads together are not those alone: {difference:.1e}, at most {TOLERANCE:.0e}")
        measure(bench)
    print(f"{rounds.hardware(given.device)}\n{bench.setting}")
    for goal in GOALS:
        for least, words in ((0.0, "all configurations"), (USUAL, f"learning rates from {USUAL:g} on")):
            rows = table(known(given.out, bench.setting), goal, least)
            print(f"\n{goal}, {words}\n\n{rounds.table(HEADERS, rows)}")


if __name__ == "__main__":
    main()
