"""Measure the gain of each part of a recipe on a data set: one change at a time, several seeds, one table.

    python benchmarks/ablation.py --root ../shared/data/clothing --weights FOLDER --out ablation.jsonl

Runs that are already in the output are not trained again, so the same command continues. --table prints the table of
the runs so far, and what the mean of two or three seeds of a variant gains. Every run trains on train alone, and
leaves its logits in a folder named after the output.
Its last epoch is judged as it is and with test-time augmentation, each also with a posterior correction for each
metric (cross-fitted on val; test uses val's tau).
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import rounds
from safetensors.numpy import load_file, save_file

from trainers.config import Recipe, TrainConfig, Views
from trainers.data.cache import wanted_side
from trainers.data_config import DataConfig
from trainers.evaluation import logit_adjustment, metrics
from trainers.evaluation.predict import predict
from trainers.loading.batches import Data
from trainers.optim import frequency
from trainers.train import train

ADAMW = {"name": "adamw", "lr": 2e-3, "layer_decay": 0.9, "weight_decay": 0.05}
FLIP, CROP = {"horizontal_flip": 0.5}, {"random_resized_crop": {"scale": (0.5, 1.0)}}
SMALLER = {"random_resized_crop": {"scale": (0.35, 1.0)}}
JITTER = {"color_jitter": {"brightness": 0.2, "contrast": 0.2}}
COLOUR = {"color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}}
BASE: dict[str, Any] = {
    "backbone": "mobilenetv2_100",
    "backbone_args": {"pad_type": "same"},
    "normalize": {"mean": 0.5, "std": 0.5},
    "image_size": 112,
    "loss": {"name": "cross_entropy"},
    "optimizer": ADAMW,
    "schedule": {"name": "cosine", "warmup_epochs": 1},
    "augment": FLIP | CROP | JITTER,
    "epochs": 12,
    "batch_size": 64,
}
EMA = {"weight_averaging": {"name": "ema", "decay": 0.998}}
ALL: dict[str, Any] = {"augment": FLIP | SMALLER | COLOUR | {"mixup": 0.2}} | EMA
SMOOTH: dict[str, Any] = {"loss": {"name": "cross_entropy", "label_smoothing": 0.1}}
LITE0 = {"backbone": "tf_efficientnet_lite0", "backbone_args": {}, "normalize": {"mean": 0.5, "std": 0.5}}
VARIANTS: dict[str, dict[str, Any]] = {
    "12 epochs": {},
    "all four": ALL,
    "8 epochs": {"epochs": 8},
    "all four, 160 pixels": ALL | {"image_size": 160},
    "MixUp .2": {"augment": FLIP | CROP | JITTER | {"mixup": 0.2}},
    "EMA .998": EMA,
    "crops from .35": {"augment": FLIP | SMALLER | JITTER},
    "saturation .2": {"augment": FLIP | CROP | COLOUR},
    "smoothing .1": SMOOTH,
    "all four, smoothing .1": ALL | SMOOTH,
    "160 pixels, smoothing .1": SMOOTH | {"image_size": 160},
    "all four, 160 pixels, smoothing .1": ALL | SMOOTH | {"image_size": 160},
    "logit adjusted": {"loss": {"name": "logit_adjusted"}},
    "head alone for an epoch": {"freeze": {"epochs": 1}},
    "all four, 8 epochs": ALL | {"epochs": 8},
    "all four, 160 pixels, Lite0": ALL | LITE0 | {"image_size": 160},
    "all four, 128 pixels": ALL | {"image_size": 128},
    "160 pixels": {"image_size": 160},
}
VIEWS = Views(flip=True, scales=(1.0, 1.15))
GOALS = ("overall_accuracy", "mean_class_accuracy")
LOOKS = ("as it is", "TTA", "corrected", "TTA corrected")
FILES = {"mobilenetv2_100": "mobilenetv2_100_same.safetensors"}  # other files are named after their backbone


def measured(data: Data, train_config: dict[str, Any], seed: int, keep: Path) -> dict[str, Any]:
    """Return both accuracies by look, split and metric, and save the logits to `keep`."""
    recipe = Recipe(data=DataConfig(root="x"), metric="mean_class_accuracy", train={**train_config, "seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        epochs = list(train(recipe, data, Path(folder)))
        model = Path(folder) / "model.safetensors"
        logits = {split: predict(recipe, data, model, split=split) for split in ("val", "test")}
        tta = {split: predict(recipe, data, model, split=split, views=VIEWS) for split in ("val", "test")}
    keep.parent.mkdir(parents=True, exist_ok=True)
    save_file(logits | {f"{split}_tta": given for split, given in tta.items()}, keep)
    found = {"as it is": both(data, logits), "TTA": both(data, tta)}
    found |= {"corrected": corrected(data, logits), "TTA corrected": corrected(data, tta)}
    return found | {"seconds": sum(epoch.seconds for epoch in epochs)}


def both(data: Data, logits: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    found = {}
    for split, given in logits.items():
        scores = metrics.scores(given, data.labels(data.table.indices(split)), data.table.categories, loss=0.0)
        found[split] = {metric: scores.value(metric) for metric in GOALS}
    return found


def corrected(data: Data, logits: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    prior = frequency.log_prior(data.counts(data.table.indices("train")))
    labels = {split: data.labels(data.table.indices(split)) for split in logits}
    val = logit_adjustment.Fitting(logits["val"], labels["val"], prior, data.categories)
    test = logit_adjustment.Fitting(logits["test"], labels["test"], prior, data.categories)
    fits = {metric: val.fit(metric, 0.0) for metric in GOALS}
    return {
        "val": {metric: fit.scores.value(metric) for metric, fit in fits.items()},
        "test": {metric: test.at(fit.tau, 0.0).value(metric) for metric, fit in fits.items()},
        "tau": {metric: fit.tau for metric, fit in fits.items()},
    }


def table(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a Markdown table of means and standard errors over seeds, one line per variant and look."""
    yield "| variant | look | n | val mean class | val overall | test mean class | test overall |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for variant in VARIANTS:
        mine = [run["found"] for run in runs if run["variant"] == variant]
        for look in LOOKS if mine else ():
            cells = [
                rounds.spread([one[look][split][metric] for one in mine])
                for split in ("val", "test")
                for metric in GOALS[::-1]
            ]
            yield f"| {variant} | {look} | {len(mine)} | " + " | ".join(cells) + " |"


def seeds(data: Data, folder: Path) -> Iterator[str]:
    """Yield a Markdown table of the variants with three seeds: both accuracies of one model and of means over seeds,
    with test-time augmentation, on val and test together.
    """
    yield "| variant | one: overall, mean class | two seeds | three seeds |"
    yield "|---|--:|--:|--:|"
    known = data.labels([row for split in ("val", "test") for row in data.table.indices(split)])
    for variant in VARIANTS:
        files = [folder / f"{variant} {seed}.safetensors" for seed in range(3)]
        if not all(file.exists() for file in files):
            continue
        found = [load_file(file) for file in files]
        logits = [np.concatenate([one["val_tta"], one["test_tta"]]).astype(np.float32) for one in found]
        cells = []
        for size in (1, 2, 3):
            means = [np.mean(some, axis=0) for some in combinations(logits, size)]
            scores = [metrics.scores(mean, known, data.table.categories, loss=0.0) for mean in means]
            cells.append(", ".join(f"{np.mean([one.value(goal) for one in scores]):.4f}" for goal in GOALS))
        yield f"| {variant} | " + " | ".join(cells) + " |"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--root", default="../shared/data/clothing")
    ask.add_argument("--weights", type=Path, default=Path("../shared/weights"), help="a folder of weights files")
    ask.add_argument("--cache", type=Path, default=Path("mlruns/cache"))
    ask.add_argument("--out", type=Path, default=Path("mlruns/ablation.jsonl"))
    ask.add_argument("--variants", nargs="*", default=list(VARIANTS))
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--table", action="store_true")
    given = ask.parse_args()
    if not given.table:
        run(given)
    print("\n".join(table(rounds.recorded(given.out))))
    data = Data.open(DataConfig(layout="table", root=given.root, size=64), given.cache)
    print("\n".join(["", *seeds(data, given.out.with_suffix(""))]))


def run(given: argparse.Namespace) -> None:
    """Train the runs that the output lacks, seed by seed, so that an interruption leaves complete rounds."""
    done = {(one["variant"], one["seed"]) for one in rounds.recorded(given.out)}
    for seed in range(given.seeds):
        for variant in given.variants:
            if (variant, seed) in done:
                continue
            config = BASE | VARIANTS[variant]
            file = FILES.get(config["backbone"], f"{config['backbone']}.safetensors")
            config |= {"weights": str(given.weights / file)}
            size = wanted_side(config["image_size"], TrainConfig(**config).augment.smallest_window)
            data = Data.open(DataConfig(layout="table", root=given.root, size=size), given.cache)
            found = measured(data, config, seed, given.out.with_suffix("") / f"{variant} {seed}.safetensors")
            with given.out.open("a") as file:
                file.write(json.dumps({"variant": variant, "seed": seed, "found": found}) + "\n")
            print(variant, seed, found["as it is"], f"{found['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
