"""The words for a data set: categories, rows, and the table that every layout is read into."""

import gc
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from trainers.support.errors import Fault

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
Box = tuple[int, int, int, int]
"""Left, upper, right, lower in pixels as Pillow counts them: right and lower are the first pixels outside."""


@dataclass(frozen=True)
class Category:
    """One question about an image, and its possible answers in label order."""

    name: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One image: `path` relative to the table's root, one class index a category, and where it was listed.

    `box` is there only when the images are to be cut to their boxes; `labels` is None where nobody knows them.
    """

    path: str
    split: str
    box: Box | None
    labels: tuple[int, ...] | None
    where: str


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
        digest = hashlib.sha256(json.dumps([(c.name, c.classes) for c in self.categories]).encode())
        for row in self.rows:
            digest.update(f"{row.path!r} {row.split} {row.box} {row.labels}\n".encode())
        return digest.hexdigest()[:16]


def counted(rows: Iterable[Row]) -> Counter[tuple[int, int]]:
    """How many of the rows have each label, by the places of its category and of its class."""
    counts: Counter[tuple[int, int]] = Counter()
    for labels, times in Counter(row.labels for row in rows).items():  # far fewer than rows
        for label in enumerate(labels or ()):
            counts[label] += times
    return counts


@dataclass(frozen=True)
class Remarks:
    """What reading a data set brings up: `faults` must be mended before any training, `notes` are worth knowing."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)


Found = tuple[Path, tuple[Category, ...], list[Row]]
"""What a layout reads: the folder that the paths are relative to, the categories, and every row."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for reference cycles, which doubles the time of making millions of rows that have none."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
