"""Cross-validation: the folds of a trial, trained one after another, and what their predictions come to together."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from trainers.config import Recipe
from trainers.data import splitting
from trainers.epoch import Epoch, FoldScores, Look
from trainers.evaluation import predict
from trainers.evaluation.predict import Validation
from trainers.loading.batches import Data
from trainers.support import run_state
from trainers.support.checksummed import load_array, save_array
from trainers.support.errors import Diverged

TrainOne = Callable[[Recipe, Data, Path, Sequence[Epoch]], Generator[Epoch]]
"""Trains one fold in a folder of its own, whose val_logits.npy are as the network gives them; given its epochs on
record.
"""


def folder_of(trial: Path, number: int) -> Path:
    """Where a fold is trained; they are counted from 1."""
    return trial / f"fold_{number}"


@dataclass(frozen=True)
class Folds:
    """A data set whose train and val are parted into `count` folds, by `seed`: the same for all trials."""

    data: Data
    count: int
    seed: int

    @cached_property
    def numbers(self) -> list[int | None]:
        """The fold of each row."""
        table = self.data.table
        return splitting.folds(table.rows, table.categories, count=self.count, seed=self.seed)

    def fold(self, number: int) -> Data:
        """The data set with one fold as val, and the others as train."""
        return replace(self.data, table=splitting.with_val(self.data.table, self.numbers, number))

    @cached_property
    def pooled(self) -> Data:
        """The data set with all folds as val."""
        return replace(self.data, table=splitting.pooled(self.data.table))

    def joined(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Predictions of each fold by the training that did not see it, in the order of the pooled rows."""
        order = [number for number in self.numbers if number is not None]
        places = np.argsort(np.argsort(order, kind="stable"), kind="stable")
        found: np.ndarray = np.concatenate(parts)[places]
        return found


def train(
    recipe: Recipe, folds: Folds, folder: Path, train_one: TrainOne, recorded: Sequence[Epoch] = ()
) -> Generator[Epoch]:
    """Train every fold from the same initial weights; yields all epochs, whose numbers run on from fold to fold.

    Epoch e of fold k has the number (k - 1) E + e, and the scores of its own fold; but that val of the last one is
    all folds together, each predicted by the training that did not see it, after its epoch that counts, and corrected
    where the recipe says so. Before that one is yielded, val_logits.npy of `folder` are those predictions. What an
    earlier, interrupted call left is continued, with the epochs that it yielded, `recorded`. Raises as training does.
    """
    chosen: list[Epoch] = []
    for number in range(1, folds.count + 1):
        place, before, epochs = folder_of(folder, number), (number - 1) * recipe.train.epochs, list[Epoch]()
        known = _of_fold(recipe, number, recorded)
        with closing(_named(number, train_one(recipe.of_fold, folds.fold(number), place, known))) as trained:
            for epoch in trained:
                epochs.append(epoch)
                told = epoch.model_copy(update={"number": before + epoch.number})
                if told.number == recipe.epochs:
                    told = _told(told, [*chosen, _counting(recipe, epochs)], together(recipe, folds, folder))
                yield told
        chosen.append(_counting(recipe, epochs))


def _of_fold(recipe: Recipe, number: int, recorded: Sequence[Epoch]) -> list[Epoch]:
    """The epochs on record of one fold, as it counts them; not the last of all, whose scores are of all folds."""
    before = (number - 1) * recipe.train.epochs
    mine = (epoch for epoch in recorded[before : before + recipe.train.epochs] if not epoch.folds)
    return [epoch.model_copy(update={"number": epoch.number - before}) for epoch in mine]


def _named(number: int, epochs: Generator[Epoch]) -> Generator[Epoch]:
    """The epochs of a fold, which is named where its training diverges."""
    try:
        yield from epochs
    except Diverged as error:
        raise type(error)(f"fold {number}: {error}") from error


def _counting(recipe: Recipe, epochs: Sequence[Epoch]) -> Epoch:
    """The epoch of a fold whose weights and predictions are its own, the earliest of equals."""
    return max(epochs, key=recipe.of_fold.rank)


def together(recipe: Recipe, folds: Folds, folder: Path) -> Validation:
    """What the predictions of all folds are worth, which are put down in `folder`.

    Correction, thresholds and temperature are fitted to all of them. Raises Diverged where a metric that decides
    something is no number.
    """
    parts = [load_array(folder_of(folder, number + 1) / run_state.LOGITS) for number in range(folds.count)]
    logits, data = folds.joined(parts), folds.pooled
    rows = data.table.indices("val")
    loss = predict.scores(recipe, data, logits, split="val", fit=("val",)).loss
    found = predict.judged(recipe, data, logits, data.labels(rows), data.counts(rows), loss)
    for name in recipe.judges:
        if found.val and not math.isfinite(value := found.val.metrics.get(name, 0.0)):
            raise Diverged(f"{name} is {value} on all folds together, and cannot be compared")
    if found.logits is not None:
        save_array(folder / run_state.LOGITS, found.logits)
    return found


def _told(last: Epoch, chosen: Sequence[Epoch], seen: Validation) -> Epoch:
    """The last epoch with the scores of all folds in the place of its own."""
    each = [(epoch.number, epoch.val) for epoch in chosen]
    return last.model_copy(
        update={
            "val": seen.val,
            "plain": seen.plain,
            "corrected": seen.corrected,
            "thresholds": seen.thresholds,
            "temperature": seen.temperature,
            "folds": tuple(FoldScores(epoch=n, **val.model_dump()) for n, val in each if val),
        }
    )


def look(recipe: Recipe, folds: Folds, folder: Path, *, device: str = "cpu") -> Look:
    """All folds through the recipe's test-time augmentation, each by the model that did not see it."""
    parts = [
        predict.predict(
            recipe,
            folds.fold(number),
            folder_of(folder, number) / run_state.WEIGHTS,
            split="val",
            device=device,
            views=recipe.train.tta,
        )
        for number in range(1, folds.count + 1)
    ]
    return predict.look(recipe, folds.pooled, folds.joined(parts), fit="val")
