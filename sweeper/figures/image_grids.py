"""Grids of images as PNG bytes: the worst mistakes, and crops to boxes. Independent of run folders."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from sweeper.figures.plots import DPI, NORMAL, SMALL, png, short, style
from sweeper.statistics.confusion import Mistake
from trainers.data import images
from trainers.data.table import Box, Row, Span, Table, classes_of, spans

WORST = 20  # mistakes on a page
ACROSS = 5
PAIRS = 6  # originals beside their crops
SIDE = 140  # pixels of a thumbnail's longer side
TILE = 1.7  # inches


def mistakes(table: Table, rows: Sequence[Row], found: Sequence[Mistake], title: str) -> bytes:
    """Draw the first mistakes of `found`, cropped as the network saw them, with category, prediction and truth."""
    shown, places = found[:WORST], spans(table.categories)
    with style():
        figure, axes = _page(len(shown), ACROSS, 2.35, title)
        for one, panel in zip(shown, axes, strict=True):
            _show(panel, read(table, rows[one.row]))
            panel.set_title(_file(rows[one.row]), fontsize=SMALL, color="#57606a", loc="center")
            panel.set_xlabel(words(places[one.category], one, rows[one.row]), fontsize=SMALL)
        if not shown:
            figure.text(0, 0, "no mistake", fontsize=NORMAL)
        return _fewer_colours(png(figure))


def _file(row: Row) -> str:
    """Return the end of a file's name, which distinguishes images best."""
    name = row.path.split("/")[-1]
    return name if len(name) <= 20 else f"…{name[-19:]}"


def words(span: Span, one: Mistake, row: Row) -> str:
    """Return the caption of a mistake: category, the class wrongly predicted or missed, and all true classes."""
    category, labels = span.category, (row.labels or ())[span.labels]
    true = ", ".join(category.classes[k] for k in classes_of(labels, category)) or "none of them"
    said = "missed" if one.predicted is None else "said"
    answer = one.true if one.predicted is None else one.predicted
    name = "" if answer is None else short(category.classes[answer], 17 if one.predicted is not None else 14)
    return f"{short(category.name)}\n{said} {name} {one.confidence:.2f}\ntrue {short(true, 20)}"


def crops(table: Table, rows: Sequence[Row], title: str) -> bytes:
    """Draw originals with their box, each beside its crop; all `rows` have boxes."""
    shown = rows[:PAIRS]
    with style():
        figure, axes = _page(2 * len(shown), 4, 2.0, title)
        for row, whole, part in zip(shown, axes[::2], axes[1::2], strict=True):
            image = read(table, replace(row, box=None))
            _show(whole, image)
            if row.box:
                _outline(whole, images.inside(row.box, image.size), min(1.0, SIDE / max(image.size)))
            whole.set_xlabel(_file(row), fontsize=SMALL)
            cut = read(table, row)
            _show(part, cut)
            part.set_xlabel(f"cropped: {cut.width} x {cut.height}", fontsize=SMALL)
        return _fewer_colours(png(figure))


def read(table: Table, row: Row) -> Image.Image:
    """Return the image upright, in RGB, and cropped to its box, if any. Raises UnreadableImage or OSError."""
    with images.pillow_errors():
        image = images.decode((table.root / row.path).read_bytes())
    return image.crop(images.inside(row.box, image.size)) if row.box else image


def _page(count: int, columns: int, height: float, title: str) -> tuple[Figure, list[Axes]]:
    rows = -(-max(1, count) // columns)
    figure = Figure(figsize=(columns * TILE, rows * height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in axes:
        panel.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=NORMAL, fontweight="bold")
    return figure, axes[:count]


def _show(axes: Axes, image: Image.Image) -> None:
    """Draw a thumbnail of the image in a square panel, with its aspect ratio kept."""
    image = image.copy()
    image.thumbnail((SIDE, SIDE))
    axes.set_axis_on()
    axes.imshow(np.asarray(image))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _outline(axes: Axes, box: Box, scale: float) -> None:
    """Draw the box, white on black, to be visible on any background."""
    left, upper, right, lower = (edge * scale for edge in box)
    for colour, width in (("black", 3.0), ("white", 1.2)):
        corner, size = (left - 0.5, upper - 0.5), (right - left, lower - upper)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=width))


def _fewer_colours(content: bytes) -> bytes:
    """Return the same PNG with a palette: a third of the size, with hardly a visible difference."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").quantize(256).save(out, format="PNG", optimize=True, dpi=(DPI, DPI))
    return out.getvalue()
