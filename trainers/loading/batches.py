"""A data set with its decoded images, and the order in which its rows form batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from trainers.config import CustomLoss, Loss
from trainers.data import layouts
from trainers.data.cache import Cache, open_cache
from trainers.data.decoded_files import SQUASHED
from trainers.data.table import MISSING, Category, Table, class_counts, label_matrix, spans
from trainers.data_config import DataConfig, Framing


@dataclass(frozen=True)
class Data:
    """A data set ready for training: its rows, and their images in the same order."""

    table: Table
    cache: Cache

    @classmethod
    def open(cls, config: DataConfig, folder: Path, framing: Framing = SQUASHED) -> "Data":
        """Read the rows and map the images; decodes them first if `folder` does not have them cached yet."""
        table = layouts.read(config)
        return cls(table, open_cache(table, config, folder, framing))

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.table.categories

    @property
    def names(self) -> list[str]:
        return [category.name for category in self.table.categories]

    @property
    def sizes(self) -> list[int]:
        """The number of classes of each category, [K]."""
        return [len(category.classes) for category in self.table.categories]

    def labels(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the labels side by side as in `Row.labels`, [len(rows), sum of widths] int64; MISSING if unknown."""
        chosen: np.ndarray = self._labels[np.asarray(rows, dtype=np.int64)]
        return chosen

    @cached_property
    def _labels(self) -> np.ndarray:
        return label_matrix(self.table.rows, self.categories).astype(np.int64)

    @property
    def multi(self) -> list[bool]:
        """True for the categories with several answers, [K]."""
        return [category.multi for category in self.categories]

    @cached_property
    def weights(self) -> np.ndarray | None:
        """The factor of each image's loss, [rows] float32; None if all are 1."""
        found = np.array([row.weight for row in self.table.rows], dtype=np.float32)
        return None if (found == 1).all() else found

    def known(self, rows: Sequence[int], *, whole: bool = False) -> list[float]:
        """Return the share of labels known in each category among `rows`, [K]; `whole`: of images with all known."""
        known = self.labels(rows) != MISSING
        parts = (known[:, span.labels] for span in spans(self.categories))
        return [float((part.all(1) if whole else part).mean()) if len(rows) else 1.0 for part in parts]

    def known_to(self, loss: Loss, rows: Sequence[int]) -> list[float]:
        """Return the share of each category that a loss sees in `rows`, [K]: that of the known labels or, for a loss
        from an extension file, that of the images with all labels known.
        """
        return self.known(rows, whole=isinstance(loss, CustomLoss))

    def counts(self, rows: Sequence[int]) -> list[list[int]]:
        """Return the number of images of each class in `rows`, [K][C]."""
        return [count.tolist() for count in class_counts(self.labels(rows), self.categories)]


def shuffled(rows: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the rows in random order, in full batches; the rest is left out unless it is all there is."""
    return _whole(rng.permutation(np.asarray(rows)), batch_size)


def drawn(rows: Sequence[int], shares: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return as many rows drawn with replacement with probabilities `shares` [len(rows)], in full batches."""
    return _whole(rng.choice(np.asarray(rows), size=len(rows), p=shares), batch_size)


def _whole(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return in_order(order[: len(order) // batch_size * batch_size or len(order)], batch_size)


def balanced(
    labels: np.ndarray, counts: Sequence[Sequence[int]], power: float, categories: Sequence[Category]
) -> np.ndarray:
    """Return the probability with which each row is drawn, [N]: its classes' mean inverse frequency to `power`.

    labels [N, D] int, counts [K][C] images of each class. With one category, power 1 draws every class equally often,
    0.5 is square-root sampling (Mahajan et al. 2018), and 0 draws all rows equally often. A row without any known
    class is drawn as often as the average of the others.
    """
    columns = [
        _mean_inverse(labels[:, s.labels], s.category, n) for s, n in zip(spans(categories), counts, strict=True)
    ]
    means = np.stack(columns)  # [K, N]
    seen = np.isfinite(means)
    weights = (np.where(seen, means, 0).sum(0) / np.maximum(seen.sum(0), 1)) ** power
    nothing = ~seen.any(0)
    weights[nothing] = 1 if nothing.all() else weights[~nothing].mean()
    shares: np.ndarray = weights / weights.sum()
    return shares


def _mean_inverse(labels: np.ndarray, category: Category, counts: Sequence[int]) -> np.ndarray:
    """Return the mean inverse frequency of each row's classes in one category, [N]; NaN if it has none."""
    inverse = 1 / np.maximum(np.asarray(counts, dtype=np.float64), 1)
    if not category.multi:
        return np.where(labels[:, 0] == MISSING, np.nan, inverse[labels[:, 0]])
    has = labels > 0
    found: np.ndarray = np.where(has.any(1), (has * inverse).sum(1) / np.maximum(has.sum(1), 1), np.nan)
    return found


def in_order(rows: Sequence[int] | np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return all rows in their order, in batches."""
    order = np.asarray(rows)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
