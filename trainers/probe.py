"""The first rung: the heads of many recipes trained side by side on frozen features; answers in JSON on stdout.

It sees what concerns the head: loss, its weights, rate, decay, schedule, batch, balance, dropout. It is blind to
what concerns the backbone alone (backbone_lr, layer_decay, drop_path, thaw, grow) and to mixing, averaging and
clipping; of the augmentation it sees a few draws, the same for all recipes of a backbone.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers import metrics, optim, posterior
from trainers.config import Goal, Recipe, TrainConfig
from trainers.data.batches import Data, balanced, shuffled
from trainers.features import Features, alike, features
from trainers.files import full
from trainers.models import majority
from trainers.models.heads import NEEDS
from trainers.stacked import Heads

NO_ROOM = 28  # exit code on a full disk
FOLDER = "features"  # inside the cache


@dataclass(frozen=True)
class Verdict:
    """What the probe makes of a recipe: its goal on val after the last epoch, or why there is none."""

    score: float | None = None
    diverged: bool = False
    unjudged: str = ""  # why it was not tried


def probe(recipes: Sequence[Recipe], data: Data, cache: Path, device: torch.device, epochs: int) -> list[Verdict]:
    """A verdict on each recipe, in their order, after `epochs` passes over the training images' features.

    The recipes share data and goal. The features lie in a folder of `cache` and are computed where they are missing.
    """
    verdicts = {n: Verdict(unjudged=why) for n, recipe in enumerate(recipes) if (why := _blind(recipe.train))}
    judged = [n for n in range(len(recipes)) if n not in verdicts]
    for seen in _grouped(judged, [alike(recipe.train) for recipe in recipes]):
        found = features(recipes[seen[0]], data, cache / FOLDER, device)
        for members in _grouped(seen, [_shape(recipe.train) for recipe in recipes]):
            members.sort(key=lambda n: recipes[n].train.loss.name)
            configs = [recipes[n].train for n in members]
            bout = Bout(configs, recipes[seen[0]].goal, data, found, epochs)
            verdicts |= dict(zip(members, bout.verdicts(), strict=True))
    return [verdicts[n] for n in range(len(recipes))]


def _blind(config: TrainConfig) -> str:
    """Why frozen features tell nothing of a recipe."""
    if config.backbone == majority.NAME:
        return "majority learns nothing"
    if NEEDS[config.head.name] == "map":
        return f"{config.head.name} needs the map, not pooled features"
    return ""


def _shape(config: TrainConfig) -> str:
    """Equal for recipes whose heads can train in one step."""
    head = config.head.model_dump(mode="json")
    head["dropout"] = bool(head.get("dropout"))
    return json.dumps([head, config.optimizer.name, _batch(config)], sort_keys=True)


def _batch(config: TrainConfig) -> int:
    return config.batch_size * config.accumulate


def _grouped(members: Sequence[int], keys: Sequence[str]) -> Iterator[list[int]]:
    for key in dict.fromkeys(keys[n] for n in members):
        yield [n for n in members if keys[n] == key]


class Bout:
    """The training of several heads of one shape on the same features, in the same order of batches."""

    def __init__(self, configs: Sequence[TrainConfig], goal: Goal, data: Data, found: Features, epochs: int) -> None:
        self.configs, self.goal, self.data, self.features, self.epochs = configs, goal, data, found, epochs
        self.device, rows = found.val.device, data.table.indices("train")
        self.counts = data.counts(rows)
        self.labels, self.truth = data.labels(rows), data.labels(data.table.indices("val"))
        self.heads = Heads(configs, found.train.shape[2], data.names, self.counts, self.device)
        self.shares = self._balance()
        self.past: list[list[float]] = [[] for _ in configs]  # the goal after each epoch, [T][epochs]
        self.losses: list[Tensor] = []  # of each epoch, [T]

    def verdicts(self) -> list[Verdict]:
        """Train to the end; the goal of each then, corrected as its recipe asks."""
        torch.manual_seed(self.configs[0].seed)  # dropout
        logits = torch.zeros(0)
        for epoch in range(self.epochs):
            self._fit(epoch)
            logits = self.heads.evaluate(self.features.val.float()).cpu()  # [T, M, sum C]
            for past, one in zip(self.past, logits, strict=True):
                past.append(self._value(one.numpy()))
        ruined = ~torch.stack(self.losses).isfinite().all(0) | ~logits.isfinite().flatten(1).all(1).to(self.device)
        return [
            Verdict(diverged=True) if ruined[t] else Verdict(self._corrected(t, logits[t].numpy()))
            for t in range(len(self.configs))
        ]

    def _fit(self, epoch: int) -> None:
        """One pass over the training images, of each one view."""
        rng = np.random.default_rng([self.configs[0].seed, epoch])
        chunks = shuffled(range(len(self.labels)), _batch(self.configs[0]), rng)
        views = rng.integers(self.features.train.shape[1], size=len(self.labels))
        total = torch.zeros(len(self.configs), device=self.device)
        for step, chunk in enumerate(chunks):
            rows = torch.from_numpy(chunk).to(self.device)
            seen = self.features.train[rows, torch.from_numpy(views[chunk]).to(self.device)].float()
            labels = torch.from_numpy(self.labels[chunk]).to(self.device)
            shares = None if self.shares is None else self.shares[:, rows]
            total += self.heads.step(seen, labels, self._factors(epoch + (step + 0.5) / len(chunks)), shares)
        self.losses.append(total)

    def _factors(self, progress: float) -> Tensor:
        """Each head's rate as a share of its peak: its own schedule, drawn together to the epochs there are."""
        found = [
            optim.factor(c.schedule, progress * c.epochs / self.epochs, c.epochs, past)
            for c, past in zip(self.configs, self.past, strict=True)
        ]
        return torch.tensor(found, device=self.device)

    def _value(self, logits: np.ndarray) -> float:
        found = metrics.scores(logits, self.truth, self.data.table.categories, loss=0.0)
        return float(getattr(found, self.goal))

    def _corrected(self, t: int, logits: np.ndarray) -> float:
        """The goal of head `t`, whose logits [M, sum C] these are, corrected as its recipe asks."""
        asked, prior = self.configs[t].posterior, posterior.log_prior(self.counts)
        if asked.tau:
            return self._value(logits - np.float32(asked.tau) * prior)
        if not asked.fit:
            return self.past[t][-1]
        fitting = posterior.Fitting(logits, self.truth, prior, self.data.names, self.data.sizes)
        return float(getattr(fitting.fit(self.goal, 0.0).scores, self.goal))

    def _balance(self) -> Tensor | None:
        """How much each training image counts for each head, [T, N], mean 1, in place of drawing it more often."""
        if not any(config.balance for config in self.configs):
            return None
        shares = [balanced(self.labels, self.counts, config.balance) for config in self.configs]
        return torch.from_numpy(np.stack(shares) * len(self.labels)).float().to(self.device)


def main() -> None:
    """Read {"device", "cache", "epochs", "recipes"} on stdin; write the verdicts as one line of JSON."""
    asked = json.load(sys.stdin)
    recipes = [Recipe.model_validate(recipe) for recipe in asked["recipes"]]
    cache = Path(asked["cache"])
    data = Data.open(recipes[0].data, cache)
    try:
        found = probe(recipes, data, cache, torch.device(asked["device"]), asked["epochs"])
    except OSError as error:
        if not full(error):
            raise
        sys.exit(NO_ROOM)
    print(json.dumps([asdict(one) for one in found]))


if __name__ == "__main__":
    main()
