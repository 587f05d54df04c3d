"""Figures from plain numbers, as bytes of SVG or PNG: equal numbers give equal bytes. Independent of folders.

Readable in grey: elements that differ in colour also differ in lightness, line, hatch or marker. No text is smaller
than 8 points.
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

from sweeper.statistics.confusion import Floats, Ints
from trainers.data.table import Category

SMALL, NORMAL = 8.0, 9.0  # points
DARK, MIDDLE, LIGHT = "#0b3d78", "#6e7781", "#c9d1d9"
WIDTH = 9.2  # inches that a page gives a figure
MAX_PANELS = 24  # panels of one figure
MAX_NAME_LENGTH = 22  # characters of a name
CROWD = 40  # classes in one panel, at most
DPI = 110
TRAIN: Any = {"color": MIDDLE, "linestyle": "--", "linewidth": 1.2}
VAL: Any = {"color": DARK, "marker": "o", "markersize": 3, "linewidth": 1.8}
STYLE: Any = {  # Any, as the library types each key separately
    "font.size": SMALL,
    "font.family": "DejaVu Sans",  # comes with the library, so figures are the same on every machine
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
    "svg.fonttype": "none",  # text stays text, for search and screen readers
    "savefig.facecolor": "white",
}
_NOT_SHOWN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)


@contextmanager
def style(salt: str = "sweep") -> Iterator[None]:
    """Apply our style, free of user settings; characters missing in the font become boxes without a warning."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE | {"svg.hashsalt": salt})
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def svg(figure: Figure) -> bytes:
    """Return the figure as SVG without date, creator or document type."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.08)
    text = _NOT_SHOWN.sub("", out.getvalue().decode()).strip()
    return text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif").encode() + b"\n"


def png(figure: Figure, dpi: int = DPI) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.08)
    return out.getvalue()


def short(name: str, longest: int = MAX_NAME_LENGTH) -> str:
    """Return a name on one line, shortened to fit."""
    one = " ".join(name.split())
    return one if len(one) <= longest else one[: longest - 1] + "…"


# ------------------------------------------------------------------------------------------ panels
def panels(
    count: int, *, columns: int, width: float, heights: Sequence[float], sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Create a figure of `count` panels, row by row; widths and row heights (see `rows`) are in inches."""
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
    """Return the height of each row of panels: that of its tallest."""
    return [max(heights[start : start + columns]) for start in range(0, len(heights), columns)] or [1.0]


def grid(axes: Axes) -> None:
    axes.grid(color="#eaeef2", linewidth=0.8)
    axes.set_axisbelow(True)


# ----------------------------------------------------------------------------------------- learning
@dataclass(frozen=True)
class Curves:
    """One quantity by epoch on train and val, [E] each; values that are not finite are NaN or infinity."""

    name: str
    train: Sequence[float]
    val: Sequence[float] = ()


def curves(quantities: Sequence[Curves], title: str) -> bytes:
    """Return an SVG with a panel per quantity over the epochs."""
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
    """Draw train dashed and val with markers; values that are not finite leave a gap."""
    for label, values, look in (("train", train, TRAIN), ("val", val, VAL)):
        if values:
            finite = np.where(np.isfinite(values), values, np.nan)
            alone = {"marker": "x"} if len(values) == 1 else {}  # a single point has no line
            axes.plot(range(1, len(values) + 1), finite, label=label, **{**alone, **look})


@dataclass(frozen=True)
class Learning:
    """A run by epoch: each category's accuracy on val and train, and the macro metrics on val, [E] each."""

    val: Mapping[str, Sequence[float]]
    train: Mapping[str, Sequence[float]]
    macro: Mapping[str, Sequence[float]]
    epoch: int | None = None  # number of the best one


def categories(run: Learning, title: str) -> bytes:
    """Return an SVG with a panel per category's accuracy over the epochs, and one for macro precision, recall, F1."""
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
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.tick_params(labelbottom=True)
    axes.set_xlabel("epoch")


def _epochs(axes: Axes, run: Learning) -> None:
    _over_epochs(axes)
    if run.epoch is not None and run.epoch < max(map(len, run.val.values()), default=0):
        axes.axvline(run.epoch, color=MIDDLE, linewidth=0.8, linestyle=(0, (1, 2)))


# ------------------------------------------------------------------------------------------- labels
@dataclass(frozen=True)
class Labels:
    """One category's images per class [C], and each class's weight in the loss, including the category's factor.

    `missing` is a note for a category whose labels are not known for all images.
    """

    category: Category
    counts: Ints
    weights: Floats
    missing: str = ""


def labels(groups: Sequence[Labels], title: str) -> bytes:
    """Return an SVG with the images of every class, and their weight in the loss (images x weight)."""
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
    """Return the group, reduced to the 40 most common classes if there are more."""
    if len(group.counts) <= CROWD:
        return group
    kept = np.argsort(-group.counts, kind="stable")[:CROWD]
    name = f"{group.category.name}, the {CROWD} most common of {len(group.counts)}"
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
