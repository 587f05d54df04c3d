"""Find what no layout may hold: paths out of the data set, images listed twice, names that cannot be shown."""

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from posixpath import normpath

from trainers.data.table import Category, Row
from trainers.data_config import DataConfig
from trainers.support.errors import Fault, folded
from trainers.support.text import on_one_line

DRIVE = re.compile(r"[A-Za-z]:[/\\]")
ELSEWHERE = {
    re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://"): "a URL, not a file: download the images and write their paths",
    DRIVE: "paths are relative to the data set, without a drive",
}


def inside(base: Path, rows: Iterable[Row], faults: list[Fault]) -> Iterator[Row]:
    """Yield the rows whose path is relative, has neither '..' nor NUL, and follows no link out of the data set."""
    home, here = base.resolve(), homes(base)

    @cache  # few folders, many images
    def leaving(folder: str) -> set[str] | None:
        """Return the names in a folder that lead out of the data set; None if the folder itself does."""
        place = base / folder
        if not _within(place, home):
            return None
        links = [entry.name for entry in os.scandir(place) if entry.is_symlink()] if place.is_dir() else []
        return {name for name in links if not _within(place / name, home)}

    refused: list[tuple[str, Fault]] = []
    for row in rows:
        folder, _, name = row.path.rpartition("/")
        if help := unfit(row.path, here):
            help = _moved(base, row.path) or help
            refused.append((help, Fault(row.where, f"the path {row.path!r} is refused", help)))
        elif (links := leaving(folder)) is None or name in links:
            help = "copy the images, or set data.root to the folder that holds them"
            what = f"the path {row.path!r} is refused: a link out of the data set"
            refused.append((help, Fault(row.where, what, help)))
        else:
            yield row
    faults += folded(refused)


def homes(base: Path) -> tuple[str, str]:
    """Return the ways to write the location of the data set in front of a path."""
    return f"{base.resolve()}/", f"{base.absolute()}/"


def unfit(path: str, homes: tuple[str, ...] = ()) -> str:
    """Return why a path is refused, or an empty string; `homes` are the ways to write the data set's location."""
    if not path:
        return "every row must name an image"
    if ":" in path and (kind := next((kind for pattern, kind in ELSEWHERE.items() if pattern.match(path)), "")):
        return kind
    if path.startswith("/") and (home := next((home for home in homes if path.startswith(home)), "")):
        return f"paths are relative to the data set: remove {home!r} in front"
    if path.startswith("/") or path.rpartition("/")[2] in ("", ".") or ".." in path.split("/"):
        return "paths are relative to the data set, without '..'"
    if "\\" in path:
        return "folders are separated by /"
    if path != on_one_line(path):
        return "rename the file: its name has invisible characters"
    return ""


def _moved(base: Path, path: str) -> str:
    """Return what to remove from a path that comes from another machine, if the image exists here."""
    parts = path.replace("\\", "/").split("/")
    if not (path.startswith("/") or DRIVE.match(path)) or ".." in parts or path != on_one_line(path):
        return ""
    for k in range(1, len(parts)):
        if (base / "/".join(parts[k:])).is_file() and parts[k]:
            return f"paths are relative to the data set: remove {path[: -len('/'.join(parts[k:]))]!r} in front"
    return ""


def _within(place: Path, home: Path) -> bool:
    try:
        return place.resolve().is_relative_to(home)
    except RuntimeError:  # links that point to each other
        return True  # opening it will report the error


def unanswered(where: str, rows: Iterable[Row]) -> Iterator[Fault]:
    """Yield a note on images of train and val about which nothing is known."""
    without = [row for row in rows if row.labels is None and row.split in ("train", "val")]
    counts = Counter(row.split for row in without)
    if counts:
        what = " and ".join(f"{count:,} row{'s' * (count != 1)} of {split}" for split, count in counts.items())
        what += f" without any answer, the first {without[0].where}"
        yield Fault(where, what, "nothing is learned from them: remove them, or move them to test")


def listed_twice(rows: list[Row]) -> list[Fault]:
    first: dict[str, Row] = {}
    faults: list[tuple[str, Fault]] = []
    for row in rows:
        plain = "//" not in row.path and "/." not in row.path and not row.path.startswith(".")
        before = first.setdefault(row.path if plain else normpath(row.path), row)
        if before is not row:
            splits = f"in {row.split}" if before.split == row.split else f"in {before.split} and {row.split}"
            fault = Fault(row.where, f"{row.path!r} is listed twice {splits}", f"first at {before.where}")
            faults.append((splits, fault))
    return list(folded(faults))


def of_categories(groups: tuple[Category, ...], config: DataConfig) -> list[Fault]:
    few = [group for group in groups if len(group.classes) < 2]
    help = "a category needs at least two classes"
    if few and config.is_tabular:
        help += f"; to leave it out, write {leaving_out(config, [group.name for group in few])}"
    return [
        Fault(config.root, f"category {group.name!r} has {len(group.classes) or 'no'} class", help) for group in few
    ] + [
        Fault(config.root, f"the name {name!r} in category {group.name!r}", "it has invisible characters")
        for group in groups
        for name in (group.name, *group.classes)
        if name != on_one_line(name)
    ]


def leaving_out(config: DataConfig, names: Collection[str]) -> str:
    """Return what to write so that these are not categories."""
    if config.categories is not None:
        keys = [f"categories: {listed(name for name in config.categories if name not in names)}"]
    else:
        columns = [column for name in names for column in config.several.get(name) or (name,)]
        keys = [f"ignore: {listed([*(config.ignore or ()), *columns])}"]
    kept = {name: columns for name, columns in config.several.items() if name not in names}
    if kept and len(kept) < len(config.several):
        keys.append(f"multi: {mapping(kept) if isinstance(config.multi, dict) else listed(kept)}")
    without = " without multi" * (bool(config.several) and not kept)
    return f"data: {{{', '.join(keys)}}}{without}"


def mapping(columns: Mapping[str, Iterable[str]]) -> str:
    """Return lists of names by name, in YAML."""
    return "{" + ", ".join(f"{word(name)}: {listed(names)}" for name, names in columns.items()) + "}"


def listed(names: Iterable[str]) -> str:
    """Return names as a list in YAML."""
    return f"[{', '.join(map(word, names))}]"


def word(name: str) -> str:
    """Return a name in a form that YAML reads as text."""
    plain = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
    known = name.lower() in ("true", "false", "null")
    return name if plain.fullmatch(name) and not known else on_one_line(json.dumps(name, ensure_ascii=False))


def boxes(config: DataConfig, faults: list[Fault]) -> None:
    """Add a fault if boxes are wanted, for layouts that have none."""
    if config.crop == "box":
        faults.append(Fault("data.crop", f"layout {config.layout} has no boxes", "set data.crop to none"))
