"""Figures from plain numbers, as bytes of SVG or PNG: the same numbers make the same bytes. Knows no folder.

Readable in grey: whatever differs in colour differs in lightness, line, hatch or marker, too. No text under 8 points.
"""

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sweeper.statistics.confusion import Floats, Ints, Several
from trainers.data.table import Category

SMALL, NORMAL = 8.0, 9.0  # points
DARK, MIDDLE, LIGHT = "#0b3d78", "#6e7781", "#c9d1d9"
WIDTH = 9.2  # inches that a page gives a figure
MAX_PANELS = 24  # panels of one figure
MAX_NAME_LENGTH = 22  # characters of a name
DPI = 110
TRAIN: Any = {"color": MIDDLE, "linestyle": "--", "linewidth": 1.2}
VAL: Any = {"color": DARK, "marker": "o", "markersize": 3, "linewidth": 1.8}
STYLE: Any = {  # the library types its names one by one
    "font.size": SMALL,
    "font.family": "DejaVu Sans",  # comes with the library, so a figure is the same on every machine
    "axes.titlesize": NORMAL,
    "axes.labelsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MIDDLE,
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "hatch.linewidth": 0.7,
    "text.parse_math": False,  # a dollar in a class's name is a dollar
    "svg.fonttype": "none",  # text stays text: it can be read aloud, and found
    "savefig.facecolor": "white",
}
_NOT_SHOWN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)


@contextmanager
def style(salt: str = "sweep") -> Iterator[None]:
    """Our style and nobody's settings; a letter that the font lacks is drawn as a box, and no warning."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE | {"svg.hashsalt": salt})
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def svg(figure: Figure) -> bytes:
    """The figure as SVG without date, maker or type declaration."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.08)
    text = _NOT_SHOWN.sub("", out.getvalue().decode()).strip()
    return text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif").encode() + b"\n"


def png(figure: Figure, dpi: int = DPI) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.08)
    return out.getvalue()


def short(name: str, longest: int = MAX_NAME_LENGTH) -> str:
    """A name that fits, on one line."""
    one = " ".join(name.split())
    return one if len(one) <= longest else one[: longest - 1] + "…"


# ------------------------------------------------------------------------------------------ panels
def panels(
    count: int, *, columns: int, width: float, heights: Sequence[float], sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, row by row, each as wide and as high, in inches, as asked; see `rows`."""
    size = (columns * width, sum(heights))
    figure = Figure(figsize=size, layout="constrained")
    found = figure.subplots(
        len(heights), columns, sharex=sharex, sharey=sharey, squeeze=False, height_ratios=list(heights)
    )
    axes = list(found.flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


def rows(heights: Sequence[float], columns: int) -> list[float]:
    """The height of each row of panels that are `heights` high: that of its highest."""
    return [max(heights[start : start + columns]) for start in range(0, len(heights), columns)] or [1.0]


def grid(axes: Axes) -> None:
    axes.grid(color="#eaeef2", linewidth=0.8)
    axes.set_axisbelow(True)


# ----------------------------------------------------------------------------------------- learning
@dataclass(frozen=True)
class Curves:
    """One quantity epoch by epoch, [E] each: on train and val, NaN or infinity where it has no finite value."""

    name: str
    train: Sequence[float]
    val: Sequence[float] = ()


def curves(quantities: Sequence[Curves], title: str) -> bytes:
    """SVG: a panel for each quantity over the epochs."""
    with style("curves"):
        count = len(quantities)
        figure, axes = panels(count, columns=count, width=WIDTH / count, heights=[2.6])
        for one, panel in zip(quantities, axes, strict=True):
            _train_and_val(panel, one.train, one.val)
            panel.set_title(one.name.replace("_", " "))
            _over_epochs(panel)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=NORMAL, fontweight="bold")
        return svg(figure)


def _train_and_val(axes: Axes, train: Sequence[float], val: Sequence[float]) -> None:
    """Train dashed, val with markers; what is no finite number leaves a gap."""
    for label, values, look in (("train", train, TRAIN), ("val", val, VAL)):
        if values:
            finite = np.where(np.isfinite(values), values, np.nan)
            axes.plot(range(1, len(values) + 1), finite, label=label, **look)


@dataclass(frozen=True)
class Learning:
    """A run epoch by epoch: each category's accuracy on val and train, and the macro figures on val, [E] each."""

    val: Mapping[str, Sequence[float]]
    train: Mapping[str, Sequence[float]]
    macro: Mapping[str, Sequence[float]]
    epoch: int | None = None  # number of the one that counts


def categories(run: Learning, title: str) -> bytes:
    """SVG: a panel for each category's accuracy over the epochs, and one of macro precision, recall and F1."""
    with style("categories"):
        names = list(run.val)[: MAX_PANELS - 1]
        columns = 4 if len(names) % 3 == 0 and names else 3
        heights = rows([1.95] * (len(names) + 1), columns)
        figure, axes = panels(
            len(names) + 1, columns=columns, width=WIDTH / columns, heights=heights, sharex=True, sharey=True
        )
        for name, panel in zip(names, axes, strict=False):
            _accuracy(panel, run, name)
        _macro(axes[-1], run)
        for panel in axes:
            _epochs(panel, run)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=NORMAL, fontweight="bold")
        return svg(figure)


def _accuracy(axes: Axes, run: Learning, name: str) -> None:
    val = run.val[name]
    _train_and_val(axes, run.train.get(name, ()), val)
    value = math.nan if run.epoch is None else val[run.epoch - 1]
    axes.set_title(short(name) + (f" {value:.3f}" if math.isfinite(value) else ""))


def _macro(axes: Axes, run: Learning) -> None:
    looks = ((DARK, "-", "o"), (MIDDLE, "--", "s"), ("#000000", ":", "^"))
    for (name, values), (colour, line, marker) in zip(run.macro.items(), looks, strict=False):
        across = range(1, len(values) + 1)
        axes.plot(across, values, color=colour, linestyle=line, marker=marker, markersize=3, label=name)
    axes.set_title("all classes, val")
    axes.legend(frameon=False, loc="best")


def _over_epochs(axes: Axes) -> None:
    grid(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.tick_params(labelbottom=True)
    axes.set_xlabel("epoch")


def _epochs(axes: Axes, run: Learning) -> None:
    _over_epochs(axes)
    if run.epoch is not None and run.epoch < max(map(len, run.val.values()), default=0):
        axes.axvline(run.epoch, color=MIDDLE, linewidth=0.8, linestyle=(0, (1, 2)))


# ---------------------------------------------------------------------------------------- confusion
CELL = 0.42  # inches
BAR = 0.62  # inches, of the three bars of a class
GAP = 0.3
HEAD = 0.32  # inches above the cells, for the title


CROWD = 40  # classes in one panel, at most


def confusion(groups: Sequence[Category], found: Sequence[Ints | Several], title: str) -> bytes:
    """PNG: a panel for each category, its rows shaded by the share of the true class; empty cells stand for 0.

    Of a category with several answers it shows bars: precision, recall and average precision of each class. Of more
    than 40 classes those that are mistaken most often are shown, and how many there are.
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
    """The panel as it is, or, of a crowd of classes, those that are mistaken most often."""
    if len(group.classes) <= CROWD:
        return group, found
    wrong = found.wrong if isinstance(found, Several) else found.sum(0) + found.sum(1) - 2 * np.diag(found)
    kept = np.sort(np.argsort(-wrong, kind="stable")[:CROWD])
    name = f"{group.name}, the {CROWD} most mistaken of {len(group.classes)}"
    few = Category(name, tuple(group.classes[n] for n in kept), group.multi)
    return few, found.of(kept) if isinstance(found, Several) else found[np.ix_(kept, kept)]


@dataclass(frozen=True)
class _Box:
    """Inches of one panel: its cells or bars, and the names beside and below them."""

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
    """Boxes set like words, left to right and row by row: their upper left corners, and the size of it all."""
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
    axes.set_xlabel("said")
    axes.set_ylabel("true, and how many")


def _fares(axes: Axes, group: Category, found: Several) -> None:
    """Three bars for each class; what is not defined, such as the recall of a class that no image has, says so."""
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
            text = f"{value:.3f}" if math.isfinite(value) else "none said" if label == "precision" else "none true"
            axes.text(0.012 + np.nan_to_num(value), y, text, va="center")
    names = zip(group.classes, found.true.tolist(), strict=True)
    axes.set_yticks(places, [f"{short(name)}  {count:,}" for name, count in names])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_xlim(0, 1.16)
    axes.set_xticks(np.linspace(0, 1, 6))
    mean = np.nanmean(found.average_precision) if found.true.any() else math.nan
    number = f"  {mean:.3f}, mean average precision" if math.isfinite(mean) else ""
    axes.set_title(f"{short(group.name, 60)}{number}", fontweight="bold")
    axes.set_ylabel("class, and how many have it")
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.22 / (BAR * len(places))), ncols=3, frameon=False)


# ------------------------------------------------------------------------------------------- labels
@dataclass(frozen=True)
class Labels:
    """One category's images a class [C], and the weight that the loss gives each, its category's factor included.

    `missing` is said of a category whose answer is not known for all images.
    """

    category: Category
    counts: Ints
    weights: Floats
    missing: str = ""


def labels(groups: Sequence[Labels], title: str) -> bytes:
    """SVG: for every class its images, and what they weigh in the loss (images x weight)."""
    with style("labels"):
        shown = [_common(group) for group in groups[:MAX_PANELS]]
        longest = max(len(short(name)) for group in shown for name in group.category.classes)
        columns = min(len(shown), 2 if longest > 14 else 3)
        heights = rows([0.6 + 0.34 * len(group.counts) for group in shown], columns)
        figure, axes = panels(len(shown), columns=columns, width=WIDTH / columns, heights=heights)
        for number, (group, panel) in enumerate(zip(shown, axes, strict=True)):
            _bars(panel, group)
            panel.set_ylim((heights[number // columns] - 0.6) / 0.34 - 0.4, -0.6)  # all bars equally thick
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=NORMAL, fontweight="bold")
        return svg(figure)


def _common(group: Labels) -> Labels:
    """Of more than 40 classes the commonest."""
    if len(group.counts) <= CROWD:
        return group
    kept = np.argsort(-group.counts, kind="stable")[:CROWD]
    name = f"{group.category.name}, the {CROWD} commonest of {len(group.counts)}"
    category = Category(name, tuple(group.category.classes[n] for n in kept))
    return Labels(category, group.counts[kept], group.weights[kept], group.missing)


def _bars(axes: Axes, group: Labels) -> None:
    weighed = group.counts * group.weights
    places = np.arange(len(group.counts))
    axes.barh(places - 0.2, group.counts, 0.38, color=DARK, label="images")
    axes.barh(places + 0.2, weighed, 0.38, color="white", edgecolor=MIDDLE, hatch="////", label="images x weight")
    top = max(1.0, float(group.counts.max()), float(weighed.max()))
    for row, count, weight in zip(places.tolist(), group.counts.tolist(), group.weights.tolist(), strict=True):
        axes.text(count + top * 0.015, row - 0.2, f"{count:,}", va="center")
        axes.text(count * weight + top * 0.015, row + 0.2, f"{count * weight:,.0f}  (x {weight:.3g})", va="center")
    axes.set_yticks(places, [short(name) for name in group.category.classes])
    axes.set_xlim(0, top * 1.45)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    said = f": {group.missing}" if group.missing else ""
    axes.set_title(f"{short(group.category.name, 60)}{said}", fontweight="bold")
