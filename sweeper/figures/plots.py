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
            alone = {"marker": "x"} if len(values) == 1 else {}  # which no line shows
            axes.plot(range(1, len(values) + 1), finite, label=label, **{**alone, **look})


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
