"""Figures embedded in an HTML page: SVG with unique ids, PNG in base64. Draws nothing."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TITLES = {
    "curves.svg": "Learning curves; train is dashed",
    "categories.svg": "Accuracy of each category over the epochs",
    "confusion.png": "Confusion matrices: rows are true classes, columns predicted ones",
    "mistakes.png": "The worst mistakes, largest cross entropy first",
    "labels.svg": "Images of each class, and their weight in the loss",
    "crops.png": "Images before and after the crop to their box",
}


@dataclass(frozen=True)
class Picture:
    """A figure as part of a page: SVG, or PNG in base64."""

    title: str
    svg: str = ""
    png: str = ""


def pictures(prefix: str, paths: Sequence[Path]) -> list[Picture]:
    """Return the files that have a title; `prefix` keeps their ids distinct from those of other folders."""
    return [_picture(path, prefix) for path in paths if path.name in TITLES]


def _picture(path: Path, prefix: str) -> Picture:
    if path.suffix == ".png":
        return Picture(TITLES[path.name], png=base64.b64encode(path.read_bytes()).decode())
    own = re.sub(r"\W", "-", f"{prefix}-{path.stem}")
    drawn = re.sub(r"<[^>]*>", lambda tag: _own(tag[0], own), path.read_text(encoding="utf-8"))
    return Picture(TITLES[path.name], svg=drawn.strip())


def _own(tag: str, prefix: str) -> str:
    """Return a tag of an SVG with prefixed ids, and without a namespace, which HTML does not need.

    The text between tags stays unchanged: names in it may look like the inside of a tag.
    """
    tag = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", tag)
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', tag)
    tag = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', tag)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", tag)
