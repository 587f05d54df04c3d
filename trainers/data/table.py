"""The words for a data set: categories, rows, and the table that every layout is read into."""

import gc
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

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
        kinds = [(c.name, c.classes, *(["multi"] if c.multi else [])) for c in self.categories]
        digest = hashlib.sha256(json.dumps(kinds).encode())
        for row in self.rows:
            weight = "" if row.weight == 1 else f" {row.weight}"
            digest.update(f"{row.path!r} {row.split} {row.box} {row.labels}{weight}\n".encode())
        return digest.hexdigest()[:16]


def counted(rows: Iterable[Row], categories: Sequence[Category]) -> Counter[tuple[int, int]]:
    """How many of the rows have each class, by the places of its category and of the class in it."""
    counts: Counter[tuple[int, int]] = Counter()
    places = spans(categories)
    for labels, times in Counter(row.labels for row in rows if row.labels is not None).items():  # far fewer than rows
        for k, span in enumerate(places):
            for c in classes_of(labels[span.labels], span.category):
                counts[k, c] += times
    return counts


def classes_of(labels: Sequence[int], category: Category) -> tuple[int, ...]:
    """The classes that an image has by its labels of this category; none where the answer is missing."""
    if category.multi:
        return tuple([k for k, flag in enumerate(labels) if flag > 0])
    return () if labels[0] == MISSING else (labels[0],)


@dataclass(frozen=True)
class Remarks:
    """What reading a data set brings up: `faults` must be mended before any training, `notes` are worth knowing."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)


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


FEWEST = 10  # images of val that can rank trials at all, where the data set has enough for them


ENOUGH = 5 * FEWEST  # images in all: with fewer, a small val is all that can be had


FEW = 50  # images of val below which it is said how little a score says


UNIT = 1_000_000  # one image, so that parts of images are whole numbers: no rounding differs between machines


def hold_out(rows: Sequence[Row], *, share: float, seed: int) -> list[Row]:
    """The same rows in the same order, `share` of the labelled train rows renamed to val.

    Stratified over all categories at once: val has its share to the nearest image, every class about its share, and
    one image of each class stays in train, which comes first where the three cannot be had together. (The iterative
    algorithm of Sechidis et al. 2011 rounds each class for itself: of classes of two images it holds none out.)
    Which images go is decided by a hash of seed and path alone: neither order nor platform matters.
    """
    train = {row.path: row.labels for row in rows if row.split == "train" and row.labels is not None}
    paths = sorted(train, key=lambda path: hashlib.sha256(f"{seed}\0{path}".encode()).digest())
    if not paths:
        return list(rows)
    val = {paths[at] for at in _chosen(_codes([train[path] for path in paths]), share)}
    return [replace(row, split="val") if row.split == "train" and row.path in val else row for row in rows]


def judge(rows: Sequence[Row], root: str, remarks: Remarks, *, held_out: bool) -> None:
    """A fault where the held-out val is too small to rank trials, a note where any val has few images."""
    val = sum(row.split == "val" for row in rows)
    both = sum(row.split == "train" for row in rows) + val
    if not val:
        help = "a class needs two images, one for train and one for val"
        remarks.faults.append(
            Fault(root, "no image can be held out for val: every image is the only one of a class", help)
        )
    elif held_out and val < FEWEST and both >= ENOUGH:
        what = f"val would be {val} of {both} images: one image is {100 / val:.0f} points of accuracy"
        help = f"raise data.val_share until val has {FEWEST} or more; a class keeps one image in train"
        remarks.faults.append(Fault(root, what, help))
    elif val < FEW:
        error = f"accuracies have a standard error of up to {0.5 / math.sqrt(val):.2f}"
        what = f"val has {val} image{'s' * (val > 1)}, so {error}"
        remarks.notes.append(Fault(root, what, "trials that differ by less are tied; a larger val tells them apart"))


def _codes(labels: list[tuple[int, ...]]) -> np.ndarray:
    """[K, N]: a number for each class that differs between categories, too."""
    answers = np.array(labels, dtype=np.int32).T
    return answers + np.cumsum([0, *answers[:-1].max(1) + 1], dtype=np.int32)[:, None]


def _chosen(codes: np.ndarray, share: float) -> np.ndarray:
    """Positions for val, out of [K, N].

    They begin as every so many-th image in the order of its labels. Then the image whose classes have most above
    their share is exchanged for the one whose classes lack most, as long as the squares of what is above and
    below grow fewer.
    """
    free = np.setdiff1d(np.arange(codes.shape[1]), _kept(codes))
    wanted = min(max(1, math.floor(share * codes.shape[1] + 0.5)), len(free))
    if not wanted:
        return free
    free = free[np.lexsort(codes[::-1, free])]
    picked = np.zeros(len(free), dtype=bool)
    picked[(2 * np.arange(wanted) + 1) * len(free) // (2 * wanted)] = True
    sizes = np.bincount(codes.ravel())
    above = UNIT * np.bincount(codes[:, free[picked]].ravel(), minlength=len(sizes))
    above -= np.rint(UNIT * share * sizes).astype(np.int64)
    _exchange(codes[:, free], picked, above)
    return free[picked]


def _exchange(codes: np.ndarray, picked: np.ndarray, above: np.ndarray) -> None:
    """Improve `picked` [N] in place; `above` is what each class has over its share, in parts of an image."""
    most = np.iinfo(np.int64).max
    score = above[codes].sum(0)  # [N], over the classes of each image
    while not picked.all():
        out = int(np.where(picked, score, -most).argmax())
        less = score - UNIT * (codes == codes[:, [out]]).sum(0)
        new = int(np.where(picked, most, less).argmin())
        if score[out] - less[new] <= UNIT * len(codes):
            return
        score = less + UNIT * (codes == codes[:, [new]]).sum(0)
        picked[[out, new]] = False, True


def _kept(codes: np.ndarray) -> list[int]:
    """Positions of images that show every class, few of them: the rarest class chooses first."""
    classes, first, sizes = np.unique(codes.T.ravel(), return_index=True, return_counts=True)
    kept: dict[int, None] = {}
    shown: set[int] = set()
    for at in np.lexsort((classes, sizes)):
        if classes[at] not in shown:
            image = int(first[at]) // len(codes)
            kept[image] = None
            shown.update(codes[:, image].tolist())
    return list(kept)
