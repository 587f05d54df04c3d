"""Plots of a model's predictions: a confusion matrix per category, or bars if it has several answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeper.figures.plots import CROWD, DARK, LIGHT, MAX_PANELS, MIDDLE, NORMAL, SMALL, WIDTH, png, short, style
from sweeper.statistics.confusion import Ints, Several
from trainers.data.table import Category

CELL = 0.42  # inches
BAR = 0.62  # inches for the three bars of a class
GAP = 0.3
HEAD = 0.32  # inches above the cells, for the title


def confusion(groups: Sequence[Category], found: Sequence[Ints | Several], title: str) -> bytes:
    """Return a PNG with a panel per category; rows are shaded by the share of the true class, empty cells are 0.

    A category with several answers is shown as bars: precision, recall and average precision of each class. Of more
    than 40 classes, only the most mistaken are shown, with the total number.
    """
    looks = [most_mistaken(*pair) for pair in zip(groups, found, strict=True)][:MAX_PANELS]
    with style():
        boxes = [_box(*look) for look in looks]
        places, (width, height) = _flow([box.size for box in boxes], max(WIDTH + 2, *(box.size[0] for box in boxes)))
        figure = Figure(figsize=(width, height + HEAD))
        figure.text(0, 1, title, fontsize=NORMAL, fontweight="bold", va="top")
        for (group, panel), box, (x, y) in zip(looks, boxes, places, strict=True):
            bottom = (height - y - HEAD - box.side) / (height + HEAD)
            place = ((x + box.left) / width, bottom, box.wide / width, box.side / (height + HEAD))
            axes = figure.add_axes(place)
            if isinstance(panel, Several):
                _fares(axes, group, panel)
            else:
                _matrix(axes, group, panel)
        return png(figure)


def most_mistaken(group: Category, found: Ints | Several) -> tuple[Category, Ints | Several]:
    """Return the panel unchanged, or, if it has too many classes, reduced to the most mistaken ones."""
    if len(group.classes) <= CROWD:
        return group, found
    wrong = found.wrong if isinstance(found, Several) else found.sum(0) + found.sum(1) - 2 * np.diag(found)
    kept = np.sort(np.argsort(-wrong, kind="stable")[:CROWD])
    name = f"{group.name}, the {CROWD} most mistaken of {len(group.classes)}"
    few = Category(name, tuple(group.classes[n] for n in kept), group.multi)
    return few, found.of(kept) if isinstance(found, Several) else found[np.ix_(kept, kept)]


@dataclass(frozen=True)
class _Box:
    """The size of one panel in inches: its cells or bars, and the names beside and below them."""

    side: float
    left: float
    below: float
    wide: float

    @property
    def size(self) -> tuple[float, float]:
        return self.left + self.wide, HEAD + self.side + self.below


def _box(group: Category, found: Ints | Several) -> _Box:
    letter = 0.068  # inches, the mean at SMALL
    longest = max(len(short(name)) for name in group.classes)
    count = int((found.true if isinstance(found, Several) else found).sum())
    left = 0.35 + letter * (longest + len(f"{count:,}") + 2)
    if isinstance(found, Several):
        return _Box(BAR * len(group.classes), left, 0.6, 3.6)
    side = CELL * len(group.classes)
    return _Box(side, left, 0.35 + letter * longest, side)


def _flow(
    sizes: Sequence[tuple[float, float]], width: float
) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """Lay out boxes like words, row by row; return their upper left corners and the total size."""
    places, x, y, row, right = [], 0.0, 0.0, 0.0, 0.0
    for wide, high in sizes:
        if x and x + wide > width:
            x, y, row = 0.0, y + row + GAP, 0.0
        places.append((x, y))
        right, row, x = max(right, x + wide), max(row, high), x + wide + GAP
    return places, (right, y + row)


def _matrix(axes: Axes, group: Category, matrix: Ints) -> None:
    true = matrix.sum(1)
    share = matrix / np.maximum(1, true)[:, None]
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for (i, j), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if share[i, j] > 0.55 else "black"
            weight = "bold" if i == j else "normal"
            axes.text(j, i, str(count), ha="center", va="center", color=colour, fontweight=weight, fontsize=SMALL)
    names = [short(name) for name in group.classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), [f"{name}  {n:,}" for name, n in zip(names, true.tolist(), strict=True)])
    axes.set_xticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color=LIGHT, linewidth=0.6)
    axes.tick_params(which="both", length=0)
    right = int(np.trace(matrix))
    axes.set_title(f"{short(group.name, 60)}  {right / max(1, int(matrix.sum())):.3f}", fontweight="bold")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true, with number of images")


def _fares(axes: Axes, group: Category, found: Several) -> None:
    """Draw three bars per class; undefined values, such as the recall of a class that no image has, are labelled."""
    looks = [
        ("precision", found.precision, DARK, ""),
        ("recall", found.recall, LIGHT, ""),
        ("average precision", found.average_precision, "white", "////"),
    ]
    places = np.arange(len(group.classes))
    for row, (label, values, colour, hatch) in enumerate(looks):
        at = places + 0.26 * (row - 1)
        axes.barh(at, np.nan_to_num(values), 0.24, color=colour, edgecolor=MIDDLE, hatch=hatch, label=label)
        for y, value in zip(at.tolist(), values.tolist(), strict=True):
            text = (
                f"{value:.3f}" if math.isfinite(value) else "none predicted" if label == "precision" else "none true"
            )
            axes.text(0.012 + np.nan_to_num(value), y, text, va="center")
    names = zip(group.classes, found.true.tolist(), strict=True)
    axes.set_yticks(places, [f"{short(name)}  {count:,}" for name, count in names])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_xlim(0, 1.16)
    axes.set_xticks(np.linspace(0, 1, 6))
    mean = np.nanmean(found.average_precision) if found.true.any() else math.nan
    number = f"  {mean:.3f}, mean average precision" if math.isfinite(mean) else ""
    axes.set_title(f"{short(group.name, 60)}{number}", fontweight="bold")
    axes.set_ylabel("class, with number of images")
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.22 / (BAR * len(places))), ncols=3, frameon=False)
