"""The words for a data set: categories, rows, and the table that every layout is read into."""

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
FITTED: tuple[Split, ...] = ("train", "val")  # on which results depend
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
Box = tuple[int, int, int, int]
"""Left, upper, right, lower in pixels as Pillow counts them: right and lower are the first pixels outside."""
MISSING = -1
"""The label where nobody knows the answer."""


@dataclass(frozen=True)
class Category:
    """One question about an image, and its possible answers in label order; `multi`: an image may have several."""

    name: str
    classes: tuple[str, ...]
    multi: bool = False

    @property
    def width(self) -> int:
        """How many labels answer it: one, the index of a class; or for several answers a flag 0/1 for each class."""
        return len(self.classes) if self.multi else 1


@dataclass(frozen=True, slots=True)
class Row:
    """One image: `path` relative to the table's root, the labels of all categories, and where it was listed.

    `labels` are those of each category in turn (see `Category.width`), MISSING where nobody knows; None where that
    is so throughout. `box` is there only when the images are to be cut to their boxes. `group` names what the image
    is one of several photographs of: all go to one split. `weight` is the factor of its loss in training.
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
    """Where a category lies among the labels of a row, and among the logits of a network."""

    category: Category
    labels: slice
    classes: slice


def spans(categories: Iterable[Category]) -> tuple[Span, ...]:
    """The place of each category, in order."""
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
    """A data set as every layout is read: `root` is the folder that the rows' paths are relative to."""

    root: Path
    categories: tuple[Category, ...]
    rows: tuple[Row, ...]

    def split(self, *names: str) -> tuple[Row, ...]:
        """The rows of these splits, in table order."""
        return tuple(row for row in self.rows if row.split in names)

    def indices(self, *names: str) -> list[int]:
        """The positions of those rows in the table, and so in the cache."""
        return [index for index, row in enumerate(self.rows) if row.split in names]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over categories, paths, splits, boxes and labels: the same wherever the folder lies."""
        return self.digest(*SPLITS)

    def digest(self, *names: str) -> str:
        """The same over the rows of these splits."""
        kinds = [(c.name, c.classes, *(["multi"] if c.multi else [])) for c in self.categories]
        digest = hashlib.sha256(json.dumps(kinds).encode())
        for row in self.split(*names):
            weight = "" if row.weight == 1 else f" {row.weight}"
            digest.update(f"{row.path!r} {row.split} {row.box} {row.labels}{weight}\n".encode())
        return digest.hexdigest()[:16]


def counted(rows: Iterable[Row], categories: Sequence[Category]) -> Counter[tuple[int, int]]:
    """How many of the rows have each class, by the places of its category and of the class in it."""
    counts = class_counts(label_matrix(rows, categories), categories)
    return Counter({(k, c): n for k, images in enumerate(counts) for c, n in enumerate(images.tolist()) if n})


def label_matrix(rows: Iterable[Row], categories: Sequence[Category]) -> np.ndarray:
    """The labels of the rows, [N, D] int32, D being the sum of widths; MISSING where nobody knows."""
    unknown = (MISSING,) * sum(category.width for category in categories)
    labels = np.fromiter(chain.from_iterable(row.labels or unknown for row in rows), np.int32)
    return labels.reshape(-1, len(unknown) or 1)


def class_counts(labels: np.ndarray, categories: Sequence[Category]) -> list[np.ndarray]:
    """Images of each class, [K] of [C], by their labels [N, D]."""
    return [_class_counts(labels[:, span.labels], span.category) for span in spans(categories)]


def _class_counts(labels: np.ndarray, category: Category) -> np.ndarray:
    known = labels[labels != MISSING]
    found: np.ndarray = (labels > 0).sum(0) if category.multi else np.bincount(known, minlength=len(category.classes))
    return found


def known_images(labels: np.ndarray, categories: Sequence[Category]) -> list[int]:
    """Images whose answer is known, of several flags at least one, [K], by their labels [N, D]."""
    return [int((labels[:, span.labels] != MISSING).any(1).sum()) for span in spans(categories)]


def classes_of(labels: Sequence[int], category: Category) -> tuple[int, ...]:
    """The classes that an image has by its labels of this category; none where the answer is missing."""
    if category.multi:
        return tuple([k for k, flag in enumerate(labels) if flag > 0])
    return () if labels[0] == MISSING else (labels[0],)


@dataclass(frozen=True)
class Remarks:
    """What reading a data set brings up: `faults` must be mended before any training, `notes` are worth knowing.

    `read_as` says what was taken for what, a phrase for each thing; a summary shows all of them.
    """

    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)
    read_as: list[str] = field(default_factory=list)


Found = tuple[Path, tuple[Category, ...], list[Row]]
"""What a layout reads: the folder that the paths are relative to, the categories, and every row."""


@contextmanager
def gc_paused() -> Iterator[None]:
    """Without the search for reference cycles, which doubles the time of making millions of rows that have none."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
