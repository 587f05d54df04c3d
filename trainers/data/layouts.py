"""Read any layout of a data set into one table. Only label files are read: no image is opened here."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from trainers import extensions
from trainers.data import challenge, class_folders, class_names, splitting, validation
from trainers.data.folder_tree import unpacking
from trainers.data.table import SPLIT_NAMES, SPLITS, Box, Category, Found, Remarks, Row, Table, gc_paused
from trainers.data.tabular import custom_layout, label_files
from trainers.data.tabular import rows as tabular
from trainers.data_config import LAYOUTS, DataConfig
from trainers.support.errors import DataError, Fault
from trainers.support.files import as_on_disk
from trainers.support.text import did_you_mean

__all__ = ["Box", "Category", "DEMO_ROOT", "Row", "Table", "categories", "guess", "read", "scan", "with_margin"]

DEMO_ROOT = "data/demo"
TABLES = label_files.ENDINGS


def read(config: DataConfig) -> Table:
    """Return the whole data set as one table. Raises DataError with every fault in its label files."""
    found = scan(config)
    if found.faults:
        raise DataError(found.faults)
    return with_margin(found.table, config)


def with_margin(table: Table, config: DataConfig) -> Table:
    """Return the table with its boxes enlarged by `box_margin`, perhaps beyond the image: opening it clips them."""
    if not config.box_margin:
        return table
    rows = (row if row.box is None else replace(row, box=widened(row.box, config.box_margin)) for row in table.rows)
    return replace(table, rows=tuple(rows))


def widened(box: Box, share: float) -> Box:
    """Return the box enlarged on every side by `share` of its longer side."""
    left, upper, right, lower = box
    by = round(share * max(right - left, lower - upper))
    return left - by, upper - by, right + by, lower + by


class Scan(NamedTuple):
    """The result of reading the label files; all rows are good only if there are no faults."""

    table: Table
    faults: list[Fault]
    notes: list[Fault]
    held_out: bool = False  # val was held out from train, because the data set has none
    read_as: Sequence[str] = ()  # how names were interpreted


def scan(config: DataConfig) -> Scan:
    """Return everything that could be read, with every fault and note.

    Boxes are as listed, without a margin. Rows whose path leads out of the data set are dropped from the table, so
    that nothing can open them by accident.
    """
    with gc_paused():
        return _scan(config)


def _scan(config: DataConfig) -> Scan:
    remarks = Remarks()
    faults, root = remarks.faults, _root(config)
    base, groups, rows = _layout(config)(config, root, remarks)
    rows = list(validation.inside(base, rows, faults))
    faults += validation.listed_twice(rows) + validation.of_categories(groups, config)
    remarks.notes.extend(class_names.alike(groups, rows, config))
    if not faults and not any(row.split == "train" for row in rows):
        faults.append(Fault(str(root), "no training image"))
    held_out = not faults and not any(row.split == "val" for row in rows)
    if held_out:
        rows = splitting.hold_out(rows, groups, share=config.val_share, seed=config.split_seed)
    if not faults:
        splitting.judge(rows, groups, config, remarks, held_out=held_out)
    return Scan(Table(base, groups, tuple(rows)), faults, remarks.notes, held_out, remarks.read_as)


def unsteady(config: DataConfig, found: Scan) -> list[Fault]:
    """Return a fault if a layout from an extension file gives different rows when it is called again."""
    if config.layout in LAYOUTS or found.faults or scan(config).table.fingerprint == found.table.fingerprint:
        return []
    what = f"{config.layout} of layouts returns different rows when it is called again"
    help = "sort the files that it lists, and draw random numbers from a generator with a fixed seed"
    return [Fault(extensions.needed("layouts", config.layout).where, what, help)]


def guess(path: Path) -> DataConfig:
    """Guess the layout of a folder, or of a label file, from what is there."""
    if not path.is_dir() and not unpacking(path):
        return DataConfig(layout="table", root=str(path.parent), labels=path.name)
    if (path / "Anno_fine").is_dir():
        return DataConfig(layout="deepfashion", root=str(path), crop=_crop(path / "Anno_fine"))
    if (path / "split" / challenge.ATTRIBUTES).exists():
        return DataConfig(layout="challenge", root=str(path), crop=_crop(path / "split"))
    if not path.is_dir():
        return DataConfig(layout="folder", root=str(path))
    tables = sorted(one.name for one in path.iterdir() if one.suffix.lower() in TABLES)
    splits = {split: name for name in tables if (split := SPLIT_NAMES.get(Path(name).stem.lower()))}
    if "train" in splits and "labels.csv" not in tables:
        return DataConfig(layout="table", root=str(path), labels=splits)
    if len(tables) == 1 or "labels.csv" in tables:
        labels = "labels.csv" if "labels.csv" in tables else tables[0]
        return DataConfig(layout="table", root=str(path), labels=labels)
    return DataConfig(layout="folder", root=str(path))


def _crop(labels: Path) -> Literal["none", "box"]:
    """Return "box" if every split that is listed has boxes."""
    listed = [split for split in SPLITS if (labels / f"{split}.txt").exists()]
    return "box" if listed and all((labels / f"{split}_bbox.txt").exists() for split in listed) else "none"


def is_archive(path: Path) -> bool:
    """True if `path` is a packed data set; the error from reading it shows how to unpack it."""
    return bool(unpacking(path)) and path.is_file()


def categories(config: DataConfig) -> tuple[Category, ...]:
    """Return names and classes only, without reading lists of images if the layout allows it. Raises DataError."""
    remarks = Remarks()
    faults, root = remarks.faults, _root(config)
    if config.layout in ("challenge", "deepfashion"):
        found = challenge.attributes(_places(config, root), config, faults).categories
    else:
        found = _layout(config)(config, root, remarks)[1]
    faults += validation.of_categories(found, config)
    if faults:
        raise DataError(faults)
    return found


# --------------------------------------------------------------------------------------------- text layouts
def _places(config: DataConfig, root: Path) -> challenge.Places:
    make = challenge.Places.challenge if config.layout == "challenge" else challenge.Places.deepfashion
    return make(root)


def _text(config: DataConfig, root: Path, remarks: Remarks) -> Found:
    faults, places = remarks.faults, _places(config, root)
    if not places.labels.is_dir():
        raise DataError([_without_labels(config.layout, root, places.labels.name)])
    found = challenge.attributes(places, config, faults)
    if not found.categories:
        return places.images, (), []
    rows = challenge.rows(places, found, boxes=config.crop == "box", faults=faults)
    if config.missing and not faults:
        remarks.notes.extend((*challenge.absent(rows, found, config.root), *validation.unanswered(config.root, rows)))
    return places.images, found.categories, rows


def _without_labels(layout: str, root: Path, name: str) -> Fault:
    """Return the fault of a data set without its folder of labels, with the folder or the layout that is meant."""
    inner = next((path for path in sorted(root.iterdir()) if (path / name).is_dir()), None)
    hint = f"did you mean {str(inner)!r}?" if inner else f"layout {layout} expects its labels there"
    if not inner and class_folders.is_likely(root):
        hint += "; for one folder of images per class, write data.layout: folder"
    return Fault(str(root), f"no folder {name!r} in the data set", hint)


_LAYOUTS: dict[str, Callable[[DataConfig, Path, Remarks], Found]] = {
    "challenge": _text,
    "deepfashion": _text,
    "table": tabular.read,
    "folder": class_folders.read,
}


def _layout(config: DataConfig) -> Callable[[DataConfig, Path, Remarks], Found]:
    return _LAYOUTS.get(config.layout, custom_layout.read)


# -------------------------------------------------------------------------------------------- common to all
def _root(config: DataConfig) -> Path:
    root = as_on_disk(Path(config.root))
    if root.is_dir():
        return root
    if root.exists() and (line := unpacking(root)):
        folder = root.with_name(root.name.partition(".")[0])
        raise DataError([Fault(str(root), "is an archive", f"{line}; then data.root: {folder}")])
    what = "is a file" if root.exists() else "no such folder"
    near = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
    hint = did_you_mean(root.name, near)
    if not hint and config.layout == "challenge" and not root.exists():
        hint = f"`sweep data demo {shlex.quote(config.root)}` draws a made-up data set there"
    raise DataError([Fault(str(root), what, hint or f"set it with --set data.root=FOLDER, relative to {Path.cwd()}")])
