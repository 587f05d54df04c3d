"""A made-up data set: drawn garments with the real challenge's names and imbalance, in its layout or a table."""

import csv
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from trainers.data.challenge import FASHION
from trainers.data.demo_images import Traits, picture
from trainers.data.images import map_rows
from trainers.data.table import Box, Row
from trainers.support.errors import UserError
from trainers.support.files import sync_folder

# images per class in the real train and val splits, category by category
COUNTS = {
    "train": (
        (768, 853, 334, 422, 109, 2408, 106),
        (1523, 862, 2615),
        (488, 951, 3561),
        (2086, 826, 19, 2069),
        (310, 702, 3399, 105, 48, 436),
        (749, 279, 3972),
    ),
    "val": (
        (192, 175, 65, 77, 13, 458, 20),
        (301, 168, 531),
        (100, 173, 727),
        (387, 173, 2, 438),
        (56, 146, 680, 16, 10, 92),
        (129, 70, 801),
    ),
}
WRONG = 0.03  # share of labels that the picture does not show
SPLITS = ("train", "val", "test")
SOLID = 5  # the texture without a pattern


def draw(
    root: Path,
    *,
    images: tuple[int, int, int] = (800, 200, 200),
    seed: int = 0,
    missing: float = 0.0,
    multi: int = 0,
) -> None:
    """Draw a data set of train, val and test images at `root`, which then holds img/ and split/.

    The layout, the 26 attributes, image sizes and class frequencies are those of the fashion challenge; each class
    occurs in train and val if there is room for it. With the same versions of Pillow and NumPy, one seed gives the
    same data set, byte for byte. Test has no labels, as in the original. The folder appears whole or not at all.
    Raises UserError if `root` holds anything.

    With `missing`, the share of answers to leave out, or `multi`, the number of categories in which an image may have
    several classes (1: texture), it is a table: img/ and labels.csv. Each class of a split keeps an answer there.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            "there is already something here", where=str(root), help="choose a new folder, or remove this one"
        )
    temporary = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / "img").mkdir(parents=True)
        if missing or multi:
            _write_table(temporary, images, seed, missing, multi)
        else:
            (temporary / "split").mkdir()
            _write_set(temporary, images, seed)
        temporary.replace(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(root.parent)


def _write_set(root: Path, images: Sequence[int], seed: int) -> None:
    names = [(name, k) for k, group in enumerate(FASHION, 1) for name in group]
    lines = [f"{len(names)} ", "attribute_name   attribute_type", *(f"{name:<20}   {k}" for name, k in names)]
    _write_lines(root / "split" / "list_attr_cloth.txt", lines)
    first = 0
    for split, count in zip(SPLITS, images, strict=True):
        _write_split(root, split, range(first, first + count), seed)
        first += count


def _write_split(root: Path, split: str, numbers: range, seed: int) -> None:
    def draw_one(index: int, row: Row) -> Box:
        return _draw_one(root, row, _random(seed, numbers[index], 1))

    rows = _rows(split, numbers, seed)
    boxes = map_rows(rows, draw_one)
    _write_lines(root / "split" / f"{split}.txt", [row.path for row in rows])
    _write_lines(root / "split" / f"{split}_bbox.txt", [_corners(box) for box in boxes])
    if split != "test":
        _write_lines(root / "split" / f"{split}_attr.txt", [" ".join(map(str, row.labels or ())) for row in rows])


def _rows(split: str, numbers: range, seed: int) -> list[Row]:
    """Return the images of a split, with their labels."""
    shares = COUNTS["val" if split == "val" else "train"]
    labels = _labels(shares, len(numbers), _random(seed, numbers.start)).tolist()
    return [Row(f"img/{n:05d}.jpg", split, None, tuple(row), "") for n, row in zip(numbers, labels, strict=True)]


def _write_table(root: Path, images: Sequence[int], seed: int, missing: float, multi: int) -> None:
    lines, first = [["path", "split", *FASHION.values()]], 0
    for split, count in zip(SPLITS, images, strict=True):
        lines += _table_of(root, split, range(first, first + count), seed, missing, multi)
        first += count
    with (root / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def _table_of(root: Path, split: str, numbers: range, seed: int, missing: float, multi: int) -> Iterator[list[str]]:
    """Draw the images of a split; yield their lines of the table."""
    rows = _rows(split, numbers, seed)
    labels = [row.labels or () for row in rows]
    over = [
        _over(row, _random(seed, number, 2)) if multi else () for number, row in zip(numbers, labels, strict=True)
    ]

    def draw_one(index: int, row: Row) -> Box:
        return _draw_one(root, row, _random(seed, numbers[index], 1), over[index])

    map_rows(rows, draw_one)
    sets = [[{first, *more}, *({label} for label in rest)] for (first, *rest), more in zip(labels, over, strict=True)]
    known = _known(sets, missing, _random(seed, numbers.start, 3)) if split != "test" else [[False] * 6] * len(rows)
    for row, answers, told in zip(rows, sets, known, strict=True):
        yield [row.path, split, *map(_cell, FASHION, answers, told)]


def _over(labels: Sequence[int], random: Generator) -> tuple[int, ...]:
    """Return the textures laid over an image's own: none over solid cloth, and never solid itself."""
    others = [texture for texture in range(len(COUNTS["train"][0])) if texture not in (SOLID, labels[0])]
    count = 0 if labels[0] == SOLID else int(random.choice(3, p=(0.3, 0.5, 0.2)))
    return tuple(random.permutation(others)[:count].tolist())


def _known(sets: Sequence[Sequence[set[int]]], missing: float, random: Generator) -> list[list[bool]]:
    """Return which answers are given: all except a share, and always the first of each class."""
    seen: set[tuple[int, int]] = set()
    found = []
    for answers in sets:
        classes = [{(k, label) for label in answer} for k, answer in enumerate(answers)]
        found.append([bool(random.random() >= missing or one - seen) for one in classes])
        seen.update(*(one for one, told in zip(classes, found[-1], strict=True) if told))
    return found


def _cell(names: Sequence[str], answer: set[int], told: bool) -> str:
    return "|".join(names[label] for label in sorted(answer)) if told else ""


def _random(*seed: int) -> Generator:
    return np.random.default_rng(seed)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), newline="\n")


def _corners(box: Box) -> str:
    """Return 1-based inclusive corners with three digits, as the challenge writes them."""
    left, upper, right, lower = box
    return f"{left + 1:03d} {upper + 1:03d} {right:03d} {lower:03d}"


def _labels(counts: Sequence[Sequence[int]], images: int, random: Generator) -> NDArray[np.int64]:
    """Return class indices [images, categories]: shares as in `counts`, and each class at least once if possible."""
    columns = []
    for group in counts:
        exact = np.array(group) * images / sum(group)
        quota = np.maximum(np.floor(exact), 1 if images >= 2 * len(group) else 0).astype(np.int64)
        for k in np.argsort(np.floor(exact) - exact, kind="stable")[: max(0, images - int(quota.sum()))]:
            quota[k] += 1
        quota[np.argmax(quota)] += images - quota.sum()
        columns.append(random.permutation(np.repeat(np.arange(len(group)), quota)))
    return np.stack(columns, axis=1)


def _draw_one(root: Path, row: Row, random: Generator, over: Sequence[int] = ()) -> Box:
    """Draw a row's image, which occasionally shows another class than its label; return the garment's box.

    The textures `over` are laid over its own.
    """
    shown = [
        int(random.choice(len(group), p=np.array(group) / sum(group))) if random.random() < WRONG else label
        for label, group in zip(row.labels or (), COUNTS["train"], strict=True)
    ]
    image, box = picture(Traits(*shown), _size(random), random, over=over)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    (root / row.path).write_bytes(file.getvalue())
    return box


def _size(random: Generator) -> tuple[int, int]:
    """Return width 56 to 301 (median 214) and height 138 to 301 (median 300), as in the real images."""
    height = 300 if random.random() < 0.7 else int(random.integers(138, 302))
    width = height * random.normal(0.73, 0.13)
    return int(np.clip(width, 56, 301)), height
