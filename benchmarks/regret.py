"""How far from the best a search ends after 5, 10, 20 and 50 trials: samplers on recorded trainings.

python benchmarks/regret.py record --root ../shared/data/clothing --out mlruns/regret.jsonl
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from sweeper.search.optimizer import Optimizer
from sweeper.space import yaml_io
from sweeper.space.space import Space
from trainers.data_config import DataConfig
from trainers.evaluation import metrics
from trainers.evaluation.predict import predict
from trainers.loading.batches import Data
from trainers.train import train

SPACE = """\
study: regret
data: {layout: table, root: data/clothing}
metric: overall_accuracy
budget: {trials: 50}
train:
  backbone: test_byobnet
  pretrained: false
  image_size: 24
  loss:
    choice:
      - {name: cross_entropy, label_smoothing: {uniform: [0.0, 0.3]}}
      - {name: focal, gamma: {uniform: [0.0, 4.0]}}
  optimizer: {name: adamw, lr: {loguniform: [1e-4, 1e-1]}, weight_decay: {loguniform: [1e-3, 1.0]}}
  schedule: {name: cosine, warmup_epochs: {int: [0, 4]}}
  augment: {horizontal_flip: 0.5, random_shift: {uniform: [0.0, 0.4]}, random_erasing: {uniform: [0.0, 0.6]}}
  balanced_sampling: {uniform: [0.0, 1.0]}
  tta: {flip: false, scales: [1.0]}
  epochs: 6
  batch_size: 32
"""
TRAIN, VAL, TEST = 400, 400, 1500  # photographs; TEST tell what a configuration is worth
EVEN = NEAR = 40
SPREAD = 0.15  # configurations over the ranges, and around the defaults; share of a range
SEEDS = 3
Params = Mapping[str, Any]


def space(search: str = "") -> Space:
    """The wide space of the trainings, with another `search`."""
    return Space(yaml_io.read(Path("regret.yaml"), text=SPACE + search), ())


# ---------------------------------------------------------------------------------------- the recording
def configurations() -> list[Params]:
    """The configurations that are trained: half of them drawn evenly, the others around the defaults."""
    wide = space("search: {sampler: random, seed: 1}\n")
    spec = yaml_io.read(Path("regret.yaml"), text=SPACE + "search: {sampler: random, seed: 1}\n")
    optimizer = Optimizer(spec.search, wide)
    even = [optimizer.ask()[1] for _ in range(EVEN)]
    known = {name: one for trial in optimizer.own_trials() for name, one in trial.distributions.items()}
    rng = np.random.default_rng(0)
    around = [*wide.default(), *(near(wide, known, rng) for _ in range(NEAR - 1))]
    return [params for pair in zip(around, even, strict=True) for params in pair]  # in turns, for an early end


def near(wide: Space, known: Mapping[str, Any], rng: np.random.Generator) -> Params:
    """A configuration near the defaults; a choice keeps its default in three of four."""
    (usual,) = wide.default()

    def drawn(name: str, values: Any) -> Any:
        if isinstance(values, optuna.distributions.CategoricalDistribution):
            at = values.choices.index(usual[name])
            return values.choices[at if rng.random() < 0.75 else int(rng.integers(len(values.choices)))]
        scale = optuna._transform._SearchSpaceTransform({name: values}, transform_0_1=True)
        middle = scale.transform({name: usual[name]})[0] if name in usual else 0.5
        return scale.untransform(np.clip([middle + rng.normal(0, SPREAD)], 0, 1))[name]

    one = optuna.trial.FixedTrial({name: drawn(name, values) for name, values in known.items()})
    return wide.suggest(one)


def photographs(root: Path, cache: Path) -> Data:
    """Some of the photographs: to train on, to choose by, and to tell the worth by; the others are of no split."""
    data = Data.open(DataConfig(layout="table", root=str(root), size=64), cache)
    order = np.random.default_rng(0).permutation(len(data.table.rows)).tolist()
    splits = dict(zip(order, ["train"] * TRAIN + ["val"] * VAL + ["test"] * TEST, strict=False))
    rows = tuple(replace(row, split=splits.get(n, "")) for n, row in enumerate(data.table.rows))
    return Data(replace(data.table, rows=rows), data.cache)


def trained(data: Data, params: Params, seed: int) -> dict[str, Any]:
    """The val score after each epoch, and the score on all other photographs at the best of them."""
    recipe = space().recipe(params)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})
    with tempfile.TemporaryDirectory() as folder:
        epochs = list(train(recipe, data, Path(folder)))
        logits = predict(recipe, data, Path(folder) / "model.safetensors", split="test")
    labels = data.labels(data.table.indices("test"))
    worth = metrics.scores(logits, labels, data.categories, loss=0.0).overall_accuracy
    return {"val": [epoch.value(recipe.metric) for epoch in epochs], "test": worth}


def record(given: argparse.Namespace) -> None:
    """Train what the output lacks, seed by seed, so that an early end leaves whole rounds."""
    torch.set_num_threads(1)
    data, asked = photographs(given.root, given.cache), configurations()
    done = {(one["number"], one["seed"]) for one in lines(given.out)}
    for number, seed in ((n, s) for s in range(SEEDS) for n in range(len(asked)) if (n, s) not in done):
        found = {"number": number, "seed": seed, "params": asked[number], **trained(data, asked[number], seed)}
        with given.out.open("a") as file:
            file.write(json.dumps(found) + "\n")


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """What was recorded so far."""
    if path.exists():
        yield from (json.loads(line) for line in path.read_text().splitlines())


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ask.add_subparsers(required=True)
    recording = parts.add_parser("record", help="train what the output lacks")
    recording.add_argument("--root", type=Path, default=Path("../shared/data/clothing"))
    recording.add_argument("--cache", type=Path, default=Path("mlruns/cache"))
    recording.add_argument("--out", type=Path, default=Path("mlruns/regret.jsonl"))
    recording.set_defaults(run=record)
    given = ask.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
