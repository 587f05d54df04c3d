"""The folds of a cross-validated trial, trained one after another, and the scores of their joint predictions."""

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
"""Trains one fold in a folder of its own, given its recorded epochs. The fold's val_logits.npy holds the network's
raw logits.
"""


def folder_of(trial: Path, number: int) -> Path:
    """Return the folder in which a fold is trained; folds are counted from 1."""
    return trial / f"fold_{number}"


@dataclass(frozen=True)
class Folds:
    """A data set whose train and val are divided into `count` folds, by `seed`: the same for all trials."""

    data: Data
    count: int
    seed: int

    @cached_property
    def numbers(self) -> list[int | None]:
        """The fold of each row."""
        table = self.data.table
        return splitting.folds(table.rows, table.categories, count=self.count, seed=self.seed)

    def fold(self, number: int) -> Data:
        """Return the data set with one fold as val and the others as train."""
        return replace(self.data, table=splitting.with_val(self.data.table, self.numbers, number))

    @cached_property
    def pooled(self) -> Data:
        """The data set with all folds as val."""
        return replace(self.data, table=splitting.pooled(self.data.table))

    def joined(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the predictions of each fold by the model that did not see it, in the order of the pooled rows."""
        order = [number for number in self.numbers if number is not None]
        places = np.argsort(np.argsort(order, kind="stable"), kind="stable")
        found: np.ndarray = np.concatenate(parts)[places]
        return found


def train(
    recipe: Recipe, folds: Folds, folder: Path, train_one: TrainOne, recorded: Sequence[Epoch] = ()
) -> Generator[Epoch]:
    """Train every fold from the same initial weights; yields all epochs, numbered across the folds.

    Epoch e of fold k has the number (k - 1) E + e and the scores of its own fold, except that val of the last epoch
    is all folds together: each is predicted by the model that did not see it, after its selected epoch, and corrected
    if the recipe requests it. These predictions are in `folder`'s val_logits.npy before that epoch is yielded. An
    earlier, interrupted call is resumed, with the epochs that it yielded in `recorded`. Raises what training raises.
    """
    chosen: list[Epoch] = []
    for number in range(1, folds.count + 1):
        place, before, epochs = folder_of(folder, number), (number - 1) * recipe.train.epochs, list[Epoch]()
        known = _of_fold(recipe, number, recorded)
        with closing(_named(number, train_one(recipe.of_fold, folds.fold(number), place, known))) as trained:
            for epoch in trained:
                epochs.append(epoch)
                whole = epoch.model_copy(update={"number": before + epoch.number})
                if whole.number == recipe.epochs:
                    whole = _with_scores(whole, [*chosen, _counting(recipe, epochs)], together(recipe, folds, folder))
                yield whole
        chosen.append(_counting(recipe, epochs))


def _of_fold(recipe: Recipe, number: int, recorded: Sequence[Epoch]) -> list[Epoch]:
    """Return the recorded epochs of one fold, in its own numbering, without the very last, which scores all folds."""
    before = (number - 1) * recipe.train.epochs
    mine = (epoch for epoch in recorded[before : before + recipe.train.epochs] if not epoch.folds)
    return [epoch.model_copy(update={"number": epoch.number - before}) for epoch in mine]


def _named(number: int, epochs: Generator[Epoch]) -> Generator[Epoch]:
    """Yield the epochs of a fold; if its training diverges, the error names the fold."""
    try:
        yield from epochs
    except Diverged as error:
        raise type(error)(f"fold {number}: {error}") from error


def _counting(recipe: Recipe, epochs: Sequence[Epoch]) -> Epoch:
    """Return the selected epoch of a fold; the earliest of equals wins."""
    return max(epochs, key=recipe.of_fold.rank)


def together(recipe: Recipe, folds: Folds, folder: Path) -> Validation:
    """Evaluate the predictions of all folds together, and save them in `folder`.

    Correction, thresholds and temperature are fitted to all of them. Raises Diverged if a metric that decides
    something is not finite.
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


def _with_scores(last: Epoch, chosen: Sequence[Epoch], seen: Validation) -> Epoch:
    """Return the last epoch with the scores of all folds in place of its own."""
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
    """Evaluate all folds with the recipe's test-time augmentation, each by the model that did not see it."""
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
