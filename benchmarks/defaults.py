"""Measure three defaults: label smoothing, the fit of the posterior correction, and the epoch that counts.

    python benchmarks/defaults.py --root DATA --weights FILE.safetensors --out FOLDER [--frozen] [--quick]

Every run is a MobileNetV2 with its family's defaults, for mean class accuracy. FOLDER keeps the logits of the second
half of the epochs, so that all policies are compared on the same runs. Runs that are there are not trained again.
--frozen trains linear heads on the features of the pretrained backbone, in minutes instead of hours, but with weaker
models.
"""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import hardware, on_photographs, photographs, spread
from rounds import table as markdown
from scipy.optimize import minimize_scalar

from sweeper.space import defaults
from trainers.config import Recipe, Views
from trainers.data_config import DataConfig
from trainers.evaluation import logit_adjustment, metrics
from trainers.evaluation.predict import Evaluator, windows
from trainers.loading.batches import Data, in_order, shuffled
from trainers.models import network
from trainers.optim import frequency, losses, optimizers, softmax_losses
from trainers.support import device
from trainers.support.checkpoint import load_state, load_weights
from trainers.support.threads import INTERVAL_VARIABLE
from trainers.train import train

SMOOTHINGS = (0.0, 0.1)
FITS = {"train": ("train",), "all": ("train", "val")}
VIEWS = Views(flip=True, scales=(1.0, 1.15))
MIRRORED = (0, 2)  # the views that training sees: the whole image and its mirror image
GOAL = "mean_class_accuracy"
CPU = torch.device("cpu")
Logits = dict[str, np.ndarray]  # [epochs, N, sum C], by split and look


# ------------------------------------------------------------------------------------------------ runs
class Bench:
    """The data set, and the recipes and runs on it."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.size = given, given.image_size
        side = -(-round(1.14 * self.size) // 32) * 32
        self.data = Data.open(DataConfig(layout="table", root=str(given.root), size=side), given.cache)
        self.rows = {split: self.data.table.indices(split) for split in ("train", "val", "test")}
        self.labels = {split: self.data.labels(rows) for split, rows in self.rows.items()}

    def recipe(self, smoothing: float, seed: int) -> Recipe:
        config = {
            "backbone": "mobilenetv2_100",
            "backbone_args": {"pad_type": "same"},
            "weights": str(self.given.weights),
            "normalize": {"mean": 0.5, "std": 0.5},
            "image_size": self.size,
            "epochs": self.given.epochs,
            "batch_size": 64,
            "seed": seed,
            "loss": {"name": "cross_entropy", "label_smoothing": smoothing},
        }
        return Recipe(data=DataConfig(root="x"), metric=GOAL, train=defaults.filled(config, GOAL))

    def prior(self, fit: str) -> np.ndarray:
        return frequency.log_prior(self.data.counts(self.data.table.indices(*FITS[fit])))

    def run(self, smoothing: float, seed: int, fit: str) -> Logits:
        """Return the logits of one training, from the folder if they are already there."""
        kind = "frozen" if self.given.frozen else "whole"
        path: Path = self.given.out / f"{kind}-{self.size}-{fit}-{smoothing}-{seed}.npz"
        if not path.exists():
            trained = self.heads(smoothing, seed, fit) if self.given.frozen else self.networks(smoothing, seed, fit)
            late = list(trained)[self.given.epochs // 2 :]
            arrays: dict[str, Any] = {name: np.stack([one[name] for one in late]) for name in late[0]}
            np.savez_compressed(path, **arrays)
            print(path.name, file=sys.stderr, flush=True)
        with np.load(path) as found:
            return dict(found)

    def networks(self, smoothing: float, seed: int, fit: str) -> Iterator[Logits]:
        """Yield the logits after each epoch of a whole network."""
        asked = self.recipe(smoothing, seed)
        os.environ[INTERVAL_VARIABLE] = "0"  # a checkpoint after each epoch
        with tempfile.TemporaryDirectory() as folder:
            for epoch in train(asked, self.data, Path(folder), fit=FITS[fit]):
                late = epoch.number > self.given.epochs // 2
                yield self._seen(asked, Path(folder), fit, epoch.number) if late else {}

    def _seen(self, asked: Recipe, folder: Path, fit: str, number: int) -> Logits:
        while (state := load_state(folder / "last.ckpt")) is None or len(state["epochs"]) < number:
            time.sleep(0.05)  # it is being written
        weights = state["network"] or load_weights(folder / "model.safetensors")  # the last epoch's are only there
        net = network.restored(asked.train, self.data.sizes, weights, folder)
        lens = Evaluator(asked.train, self.data, net, CPU)
        looks = {"single": Views(), "views": VIEWS}
        splits = [split for split in ("val", "test") if split not in FITS[fit]]
        return {f"{s} {look}": lens.logits(net, self.rows[s], looks[look]).numpy() for s in splits for look in looks}

    def heads(self, smoothing: float, seed: int, fit: str) -> Iterator[Logits]:
        """Yield the logits after each epoch of a linear head on the frozen backbone's features."""
        config, seen = self.recipe(smoothing, seed).train, self.features
        x = torch.from_numpy(np.concatenate([seen[split][list(MIRRORED)] for split in FITS[fit]], 1))
        y = torch.from_numpy(np.concatenate([self.labels[split] for split in FITS[fit]]))
        objective = losses.build(
            config.loss, self.data.names, self.data.counts(self.data.table.indices(*FITS[fit])), CPU
        )
        torch.manual_seed(seed)
        rng, net = np.random.default_rng(seed), torch.nn.Linear(x.shape[2], sum(self.data.sizes))
        rates = torch.optim.AdamW(net.parameters(), weight_decay=config.optimizer.weight_decay)
        for epoch in range(config.epochs):
            chunks = shuffled(range(len(y)), config.batch_size, rng)
            for step, chunk in enumerate(chunks):
                share = optimizers.factor(config.schedule, epoch + (step + 0.5) / len(chunks), config.epochs, [])
                rates.param_groups[0]["lr"] = share * config.optimizer.lr
                mirrored = rng.integers(len(MIRRORED), size=len(chunk))
                loss = objective(net(x[mirrored, chunk]), y[chunk]).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                rates.step()
                rates.zero_grad()
            with torch.no_grad():
                said = {s: net(torch.from_numpy(seen[s])).numpy() for s in ("val", "test")}  # [views, N, sum C]
            yield {f"{s} {look}": one[0] if look == "single" else one.mean(0) for s, one in said.items()
                   for look in ("single", "views")}  # fmt: skip

    @property
    def features(self) -> dict[str, np.ndarray]:
        """The features of every view of every image, [views, N, D] by split; from the folder if they are there."""
        path: Path = self.given.out / f"features-{self.size}.npz"
        if not path.exists():
            arrays: dict[str, Any] = {split: self._features(split) for split in self.rows}
            np.savez(path, **arrays)
        return _loaded(path)

    @torch.inference_mode()
    def _features(self, split: str) -> np.ndarray:
        config = self.recipe(0.0, 0).train
        net = network.build(config, self.data.sizes).eval()
        lens = Evaluator(config, self.data, net, CPU)
        asked, chunks = windows(self.size, VIEWS), in_order(self.rows[split], 64)
        images = lens.feed(self.size).plain(chunks, asked)

        def pooled(seen: torch.Tensor) -> torch.Tensor:
            backbone: Any = net.backbone
            made: torch.Tensor = backbone.forward_head(backbone.forward_features(seen), pre_logits=True)
            return made

        found = [torch.stack([pooled(next(images)) for _ in asked]) for _ in chunks]
        return torch.cat(found, 1).numpy()


@cache
def _loaded(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


# -------------------------------------------------------------------------------------------- policies
class Sight:
    """Logits [N, sum C] of val with their labels and prior, to which a correction is fitted."""

    def __init__(self, bench: Bench, logits: np.ndarray) -> None:
        self.logits, self.labels, self.prior = logits, bench.labels["val"], bench.prior("train")
        self.categories, self.sizes = bench.data.categories, bench.data.sizes

    def fitting(self, logits: np.ndarray | None = None) -> logit_adjustment.Fitting:
        used = self.logits if logits is None else logits
        return logit_adjustment.Fitting(used, self.labels, self.prior, self.categories)

    def grid(self) -> np.ndarray:
        """Return the strength that is best on val, for each class: [sum C]."""
        return np.full(sum(self.sizes), self.fitting().fit(GOAL, 0.0).tau)

    def by_category(self) -> np.ndarray:
        """Return the best strength of each category, for each of its classes: [sum C]."""
        ends = np.cumsum(self.sizes)
        found = []
        for k, (size, end) in enumerate(zip(self.sizes, ends, strict=True)):
            part = slice(end - size, end)
            one = logit_adjustment.Fitting(
                self.logits[:, part], self.labels[:, [k]], self.prior[part], [self.categories[k]]
            )
            found.append(one.fit(GOAL, 0.0).tau)
        return np.repeat(found, self.sizes)

    def temperature(self) -> np.ndarray:
        """Return the best strength for logits calibrated by a temperature per category (Guo et al. 2017)."""
        heat = np.repeat(self._temperatures(), self.sizes)
        return heat * self.fitting((self.logits / heat).astype(np.float32)).fit(GOAL, 0.0).tau

    def _temperatures(self) -> list[float]:
        parts, found = np.split(self.logits, np.cumsum(self.sizes)[:-1], axis=1), []
        for k, part in enumerate(parts):
            logits, truth = torch.from_numpy(part).double(), torch.from_numpy(self.labels[:, k])

            def loss(log: float, logits: torch.Tensor = logits, truth: torch.Tensor = truth) -> float:
                return softmax_losses.cross_entropy(logits * math.exp(-log), truth).mean().item()

            found.append(math.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
        return found

    def shrunk(self, errors: float = 1.0) -> np.ndarray:
        """Return the strength nearest 0 within `errors` standard errors of the best, by the jackknife over folds."""
        counts = self.fitting().counts  # [taus, folds, 3, sum C]
        whole, folds = counts.sum(1), counts.shape[1]
        without = np.array([self._values(whole - counts[:, fold]) for fold in range(folds)])
        values = self._values(whole)
        apart = without - without[:, [values.argmax()]]
        error = np.sqrt((folds - 1) / folds * np.square(apart - apart.mean(0)).sum(0))
        near = [
            tau
            for tau, v, e in zip(logit_adjustment.TAUS, values, error, strict=True)
            if v >= values.max() - errors * e
        ]
        return np.full(sum(self.sizes), min(near, key=abs))

    def _values(self, counts: np.ndarray) -> np.ndarray:
        columns = metrics.Columns.of(self.categories)
        return np.array([metrics.scores_of(one, columns, 0.0).value(GOAL) for one in counts])


POLICIES: dict[str, tuple[str, Callable[[Sight], np.ndarray]]] = {
    "none": ("views", lambda sight: 0 * sight.prior),
    "fitted to single images (before)": ("single", Sight.grid),
    "fitted to the views (now)": ("views", Sight.grid),
    "a temperature first": ("views", Sight.temperature),
    "a strength per category": ("views", Sight.by_category),
    "shrunk by half a standard error": ("views", lambda sight: sight.shrunk(0.5)),
    "shrunk by a standard error": ("views", Sight.shrunk),
}
"""The val logits that each policy is fitted to, and the function that fits it."""


def judged(bench: Bench, logits: np.ndarray, shift: np.ndarray) -> tuple[float, float]:
    """Return the mean class and overall accuracy of corrected logits on test."""
    found = metrics.scores(
        (logits - shift).astype(np.float32), bench.labels["test"], bench.data.table.categories, loss=0
    )
    return found.value(GOAL), found.value("overall_accuracy")


# ---------------------------------------------------------------------------------------------- tables
def corrections(bench: Bench, seeds: range) -> Iterator[list[object]]:
    """Yield a line per smoothing and policy for the last epoch: strength, and both accuracies on test."""
    prior = bench.prior("train")
    for smoothing in SMOOTHINGS:
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in POLICIES}
        for seed in seeds:
            run = bench.run(smoothing, seed, "train")
            for name, (look, policy) in POLICIES.items():
                strength = policy(Sight(bench, run[f"val {look}"][-1]))
                found[name].append((strength[0], *judged(bench, run["test views"][-1], strength * prior)))
        for name, values in found.items():
            yield [smoothing, name, *map(spread, zip(*values, strict=True))]


def epochs(bench: Bench, seeds: range) -> Iterator[list[object]]:
    """Yield lines for the best epoch by val and the last one: val, test, and test of a retraining that ends there."""
    for smoothing in SMOOTHINGS:
        found: dict[str, list[tuple[float, ...]]] = {"best on val": [], "last": []}
        for seed in seeds:
            run, again = (bench.run(smoothing, seed, fit) for fit in FITS)
            fits = [Sight(bench, logits).fitting().fit(GOAL, 0.0) for logits in run["val single"]]
            values = [getattr(fit.scores, GOAL) for fit in fits]
            for name, at in (("best on val", int(np.argmax(values))), ("last", len(values) - 1)):
                one = judged(bench, run["test single"][at], fits[at].tau * bench.prior("train"))
                tau = Sight(bench, run["val views"][at]).grid()
                retrained = judged(bench, again["test views"][at], tau * bench.prior("all"))
                done = bench.given.epochs // 2 + at + 1
                found[name].append((done, values[at], one[0], values[at] - one[0], *retrained))
        for name, rows in found.items():
            yield [smoothing, name, *map(spread, zip(*rows, strict=True))]


def main() -> None:
    ask = on_photographs(__doc__ or "", out="mlruns/defaults")
    ask.add_argument("--frozen", action="store_true", help="heads on frozen features instead of whole networks")
    ask.add_argument("--image-size", type=int, default=64)
    ask.add_argument("--epochs", type=int, default=8)
    ask.add_argument("--seeds", type=int, default=3)
    given = photographs(ask)
    if given.quick:
        given.frozen, given.image_size, given.seeds = True, 32, 2
    device.use_threads(1)
    bench, seeds = Bench(given), range(given.seeds)
    print(hardware(given.device))
    print("\nThe last epoch, trained on train, scored on test through the views:\n")
    accuracies = [f"test {name}" for name in ("mean class", "overall")]
    print(markdown(["smoothing", "correction", "tau", *accuracies], corrections(bench, seeds)), flush=True)
    print("\nThe epoch that counts; val is cross-fitted, on single images:\n")
    heads = [
        "epochs",
        "val mean class",
        "test mean class",
        "difference",
        *(f"retrained, {one}" for one in accuracies),
    ]
    print(markdown(["smoothing", "epoch", *heads], epochs(bench, seeds)))


if __name__ == "__main__":
    main()
