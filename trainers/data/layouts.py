"""The four layouts of a data set, each read into one table. Label files only: no image is opened here."""

import csv
import difflib
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from trainers.config import DataConfig
from trainers.data import challenge, refused
from trainers.data.challenge import EXTENSIONS, SPLITS
from trainers.data.holdout import hold_out
from trainers.data.rows import Box, Category, Row, Table, uncollected
from trainers.errors import DataError, Fault
from trainers.files import regular
from trainers.visible import on_one_line

__all__ = ["Box", "Category", "DEMO_ROOT", "Row", "Table", "categories", "read", "scan", "with_margin"]

DEMO_ROOT = "data/demo"
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read(config: DataConfig) -> Table:
    """The whole data set as one table. Raises DataError with every fault of its label files, found in one pass."""
    table, faults = scan(config)
    if faults:
        raise DataError(faults)
    return with_margin(table, config)


def with_margin(table: Table, config: DataConfig) -> Table:
    """The table with its boxes enlarged by `box_margin`. They may leave the image: whoever opens it cuts them."""
    if not config.box_margin:
        return table
    rows = (row if row.box is None else replace(row, box=_widened(row.box, config.box_margin)) for row in table.rows)
    return replace(table, rows=tuple(rows))


def _widened(box: Box, share: float) -> Box:
    left, upper, right, lower = box
    by = round(share * max(right - left, lower - upper))
    return left - by, upper - by, right + by, lower + by


def scan(config: DataConfig) -> tuple[Table, list[Fault]]:
    """What could be read, and every fault met; the rows are only all good where there is no fault.

    Boxes are as listed, without a margin. Rows whose path leads out of the data set are left out of the table, so
    nobody can open them by accident.
    """
    with uncollected():
        return _scan(config)


def _scan(config: DataConfig) -> tuple[Table, list[Fault]]:
    faults: list[Fault] = []
    root = _root(config)
    base, groups, rows = _LAYOUTS[config.layout](config, root, faults)
    rows = list(refused.inside(base, rows, faults))
    faults += refused.listed_twice(rows) + refused.of_categories(groups, config.root)
    if not faults and not any(row.split == "train" for row in rows):
        faults.append(Fault(str(root), "no training image"))
    if not faults and not any(row.split == "val" for row in rows):
        rows = hold_out(rows, share=config.val_share, seed=config.split_seed)
    return Table(base, groups, tuple(rows)), faults


def categories(config: DataConfig) -> tuple[Category, ...]:
    """Names and classes only, without reading lists of images where the layout allows it. Raises DataError."""
    faults: list[Fault] = []
    root = _root(config)
    if config.layout in ("challenge", "deepfashion"):
        found = challenge.attributes(_places(config, root), faults).categories
    else:
        found = _LAYOUTS[config.layout](config, root, faults)[1]
    faults += refused.of_categories(found, config.root)
    if faults:
        raise DataError(faults)
    return found


# --------------------------------------------------------------------------------------------- text layouts
Found = tuple[Path, tuple[Category, ...], list[Row]]


def _places(config: DataConfig, root: Path) -> challenge.Places:
    make = challenge.Places.challenge if config.layout == "challenge" else challenge.Places.deepfashion
    return make(root)


def _text(config: DataConfig, root: Path, faults: list[Fault]) -> Found:
    places = _places(config, root)
    if not places.labels.is_dir():
        inner = next((p for p in sorted(root.iterdir()) if (p / places.labels.name).is_dir()), None)
        hint = f"did you mean {str(inner)!r}?" if inner else f"layout {config.layout} keeps its labels there"
        raise DataError([Fault(str(root), f"no folder {places.labels.name!r} in the data set", hint)])
    found = challenge.attributes(places, faults)
    if not found.categories:
        return places.images, (), []
    boxes = config.crop == "box"
    return places.images, found.categories, challenge.rows(places, found, boxes=boxes, faults=faults)


# ---------------------------------------------------------------------------------------------------- table
def _table(config: DataConfig, root: Path, faults: list[Fault]) -> Found:
    _no_boxes(config, faults)
    records = _records(root, config.labels, faults)
    _, header = next(records, ("", []))
    if "path" not in header:
        near = _did_you_mean("path", header) or "the first line names the columns: path,split,<category>,..."
        faults.append(Fault(f"{config.labels}:1", "no column 'path'", near))
        return root, (), []
    for name, times in Counter(header).items():
        if times > 1 or not name:
            faults.append(Fault(f"{config.labels}:1", f"{times} columns are called {name!r}", "one name a column"))
    names = [name for name in dict.fromkeys(header) if name not in ("path", "split", "")]
    if not names:
        faults.append(Fault(f"{config.labels}:1", "no category", "every column beside path and split is one"))
    lines: list[tuple[str, list[str]]] = []
    for where, record in records:
        if len(record) == len(header):
            lines.append((where, record))
        else:
            faults.append(Fault(where, f"{len(record)} columns, and the header has {len(header)}"))
    places = {name: k for k, name in enumerate(header)}
    seen = [{record[places[name]] for _, record in lines} - {""} for name in names]
    groups = tuple(Category(name, tuple(sorted(classes))) for name, classes in zip(names, seen, strict=True))
    labels = [(g, places[g.name], {label: k for k, label in enumerate(g.classes)}) for g in groups]
    columns = _Columns(places["path"], places.get("split"), labels, {})
    rows = [_table_row(where, record, columns, faults) for where, record in lines]
    return root, groups, [row for row in rows if row]


@dataclass(frozen=True)
class _Columns:
    """Where in a record things stand; equal labels are one object, for a table may have a million rows."""

    path: int
    split: int | None
    labels: list[tuple[Category, int, dict[str, int]]]
    known: dict[tuple[int, ...], tuple[int, ...]]


def _records(root: Path, name: str, faults: list[Fault]) -> Iterator[tuple[str, list[str]]]:
    """The records of a CSV file with their places; blank lines are no records."""
    try:
        with regular(root / name).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                for record in reader:
                    if any(record):
                        yield f"{name}:{reader.line_num}", [cell.strip() for cell in record]
            except csv.Error as error:
                faults.append(Fault(f"{name}:{reader.line_num}", f"not a CSV file: {error}"))
            except UnicodeDecodeError:
                faults.append(Fault(f"{name}:{reader.line_num + 1}", "not UTF-8 text", "save the file as UTF-8"))
    except OSError as error:
        near = _did_you_mean(name, [p.name for p in root.glob("*.csv")])
        raise DataError([Fault(str(root / name), f"cannot be read: {error.strerror}", near)]) from None


def _table_row(where: str, record: list[str], columns: _Columns, faults: list[Fault]) -> Row | None:
    given = "train" if columns.split is None else record[columns.split]
    split = SPLIT_NAMES.get(given.lower())
    if split is None:
        hint = _did_you_mean(given, SPLITS) or "splits are train, val and test"
        faults.append(Fault(where, f"no split {given!r}", hint))
        return None
    path, labels = record[columns.path], tuple([code.get(record[at], -1) for _, at, code in columns.labels])
    if -1 not in labels:
        return Row(path, split, None, columns.known.setdefault(labels, labels), where)
    empty = [group.name for group, at, _ in columns.labels if not record[at]]
    if split != "test" or len(empty) < len(labels):
        hint = "rows of test may leave all labels empty" if split == "test" else "only rows of test may do without"
        faults.append(Fault(where, f"no label for {', '.join(empty)}", hint))
        return None
    return Row(path, split, None, None, where)


# --------------------------------------------------------------------------------------------------- folder
def _folder(config: DataConfig, root: Path, faults: list[Fault]) -> Found:
    _no_boxes(config, faults)
    found = {path.name: path for path in _folders(root)}
    splits = {name: SPLIT_NAMES[name.lower()] for name in found if name.lower() in SPLIT_NAMES}
    if splits and "train" not in splits.values():
        faults.append(Fault(str(root), f"a folder {min(splits)!r} and no folder 'train'", "name that one 'train'"))
    for name in sorted(set(found) - set(splits)) if splits else ():
        hint = _did_you_mean(name, SPLIT_NAMES) or "beside train there may be val and test"
        faults.append(Fault(on_one_line(name), "neither train, val nor test", hint))
    tops = [(found[name], split) for name, split in splits.items()] or [(root, "train")]
    known = [top for top, split in tops if split != "test"] or [top for top, _ in tops]
    classes = tuple(sorted({path.name for top in known for path in _folders(top)}))
    rows = [row for top, split in tops for row in _folder_rows(root, top, split, classes, faults)]
    return root, (Category("class", classes),), rows


def _folder_rows(root: Path, top: Path, split: str, classes: tuple[str, ...], faults: list[Fault]) -> Iterator[Row]:
    """The images below `top`; the class is the first folder. In test, other folders and none mean: unknown."""
    code = {name: k for k, name in enumerate(classes)}
    for folder in (top, *_folders(top)):
        label = code.get(folder.name) if folder != top else None
        for where in _images(root, folder, deep=folder != top):
            if label is None and split != "test":
                faults.append(Fault(on_one_line(where), "an image outside the folder of a class"))
            else:
                yield Row(where, split, None, None if label is None else (label,), on_one_line(where))


def _folders(top: Path) -> list[Path]:
    return sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def _images(root: Path, folder: Path, *, deep: bool) -> Iterator[str]:
    """The paths of images from `root`, with slashes."""
    for where, below, names in os.walk(folder, onerror=_complain):
        below[:] = sorted(below) if deep else []
        place = Path(where).relative_to(root)
        for name in sorted(names):
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield f"{place.as_posix()}/{name}" if place.parts else name


def _complain(error: OSError) -> NoReturn:
    """A folder that may not be read is no empty one."""
    raise error


_LAYOUTS: dict[str, Callable[[DataConfig, Path, list[Fault]], Found]] = {
    "challenge": _text,
    "deepfashion": _text,
    "table": _table,
    "folder": _folder,
}


# -------------------------------------------------------------------------------------------- common to all
def _root(config: DataConfig) -> Path:
    root = Path(config.root)
    if root.is_dir():
        return root
    what = "is a file" if root.exists() else "no such folder"
    near = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
    hint = _did_you_mean(root.name, near)
    if not hint and config.layout == "challenge" and not root.exists():
        hint = f"`sweep data demo {shlex.quote(config.root)}` draws a made-up data set there"
    raise DataError([Fault(str(root), what, hint or f"set it: --set data.root=FOLDER, from {Path.cwd()} on")])


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), 1)
    return f"did you mean {near[0]!r}?" if near else ""


def _no_boxes(config: DataConfig, faults: list[Fault]) -> None:
    if config.crop == "box":
        faults.append(Fault("data.crop", f"layout {config.layout} has no boxes", "set data.crop to none"))
