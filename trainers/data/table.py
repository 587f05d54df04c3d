"""The vocabulary of a data set: categories, rows, and the table that every layout is read into."""

import gc
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from trainers.support.errors import Fault

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
FITTED: tuple[Split, ...] = ("train", "val")  # the splits that results depend on
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
Box = tuple[int, int, int, int]
"""Left, upper, right, lower in pixels, as in Pillow: right and lower are the first pixels outside."""
MISSING = -1
"""The label of an unknown answer."""


@dataclass(frozen=True)
class Category:
    """A question about an image, and its possible answers in label order; with `multi`, an image may have several."""

    name: str
    classes: tuple[str, ...]
    multi: bool = False

    @property
    def width(self) -> int:
        """The number of labels that answer it: one, the index of a class; or, with `multi`, a flag 0/1 per class."""
        return len(self.classes) if self.multi else 1


@dataclass(frozen=True, slots=True)
class Row:
    """One image: `path` relative to the table's root, the labels of all categories, and where it is listed.

    `labels` holds the labels of each category in turn (see `Category.width`), MISSING where unknown; it is None if
    all are unknown. `box` is set only if the images are to be cropped to their boxes. `group` names what this and
    other images are photographs of: all of them go to one split. `weight` is the factor of its loss in training.
    """

    path: str
    split: str
    box: Box | None
    labels: tuple[int, ...] | None
    where: str
    group: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Span:
    """The position of a category among the labels of a row, and among the logits of a network."""

    category: Category
    labels: slice
    classes: slice


def spans(categories: Iterable[Category]) -> tuple[Span, ...]:
    """Return the span of each category, in order."""
    found: list[Span] = []
    label = start = 0
    for category in categories:
        found.append(
            Span(category, slice(label, label + category.width), slice(start, start + len(category.classes)))
        )
        label, start = found[-1].labels.stop, found[-1].classes.stop
    return tuple(found)


@dataclass(frozen=True)
class Table:
    """A data set as every layout is read: the rows' paths are relative to the folder `root`."""

    root: Path
    categories: tuple[Category, ...]
    rows: tuple[Row, ...]

    def split(self, *names: str) -> tuple[Row, ...]:
        """Return the rows of these splits, in table order."""
        return tuple(row for row in self.rows if row.split in names)

    def indices(self, *names: str) -> list[int]:
        """Return the positions of those rows in the table, and so in the cache."""
        return [index for index, row in enumerate(self.rows) if row.split in names]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over categories, paths, splits, boxes, labels and weights, wherever the folder is."""
        return self.digest(*SPLITS)

    def digest(self, *names: str) -> str:
        """Return the same digits over the rows of these splits."""
        kinds = [(c.name, c.classes, *(["multi"] if c.multi else [])) for c in self.categories]
        digest = hashlib.sha256(json.dumps(kinds).encode())
        for row in self.split(*names):
            weight = "" if row.weight == 1 else f" {row.weight}"
            digest.update(f"{row.path!r} {row.split} {row.box} {row.labels}{weight}\n".encode())
        return digest.hexdigest()[:16]


def counted(rows: Iterable[Row], categories: Sequence[Category]) -> Counter[tuple[int, int]]:
    """Count the rows that have each class, by the positions of its category and of the class in it."""
    counts = class_counts(label_matrix(rows, categories), categories)
    return Counter({(k, c): n for k, images in enumerate(counts) for c, n in enumerate(images.tolist()) if n})


def label_matrix(rows: Iterable[Row], categories: Sequence[Category]) -> np.ndarray:
    """Return the labels of the rows, [N, D] int32, where D is the sum of widths; MISSING where unknown."""
    unknown = (MISSING,) * sum(category.width for category in categories)
    labels = np.fromiter(chain.from_iterable(row.labels or unknown for row in rows), np.int32)
    return labels.reshape(-1, len(unknown) or 1)


def class_counts(labels: np.ndarray, categories: Sequence[Category]) -> list[np.ndarray]:
    """Return the number of images of each class, [K] of [C], from their labels [N, D]."""
    return [_class_counts(labels[:, span.labels], span.category) for span in spans(categories)]


def _class_counts(labels: np.ndarray, category: Category) -> np.ndarray:
    known = labels[labels != MISSING]
    found: np.ndarray = (labels > 0).sum(0) if category.multi else np.bincount(known, minlength=len(category.classes))
    return found


def known_images(labels: np.ndarray, categories: Sequence[Category]) -> list[int]:
    """Return the number of images with a known answer, or one known flag of several, [K], from labels [N, D]."""
    return [int((labels[:, span.labels] != MISSING).any(1).sum()) for span in spans(categories)]


def classes_of(labels: Sequence[int], category: Category) -> tuple[int, ...]:
    """Return the classes that an image has by its labels of this category; none if the answer is missing."""
    if category.multi:
        return tuple([k for k, flag in enumerate(labels) if flag > 0])
    return () if labels[0] == MISSING else (labels[0],)


@dataclass(frozen=True)
class Remarks:
    """Remarks from reading a data set: `faults` must be fixed before any training, `notes` are worth knowing.

    `read_as` lists how names were interpreted, one phrase each; a summary shows all of them.
    """

    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)
    read_as: list[str] = field(default_factory=list)


Found = tuple[Path, tuple[Category, ...], list[Row]]
"""The result of reading a layout: the folder that the paths are relative to, the categories, and every row."""


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the search for reference cycles, which doubles the time of creating millions of rows that have none."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
