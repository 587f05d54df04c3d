"""The layout `folder`: images in a folder of their class, below a folder of their split or none."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from trainers.config import DataConfig
from trainers.data import refused
from trainers.data.images import EXTENSIONS
from trainers.data.names import class_order
from trainers.data.refused import did_you_mean
from trainers.data.rows import SPLIT_NAMES, Category, Found, Remarks, Row
from trainers.errors import Fault
from trainers.visible import on_one_line


def read(config: DataConfig, root: Path, remarks: Remarks) -> Found:
    """Every image below `root`; what is wrong goes to `remarks`."""
    faults = remarks.faults
    refused.boxes(config, faults)
    found = {path.name: path for path in _folders(root)}
    splits = {name: SPLIT_NAMES[name.lower()] for name in found if name.lower() in SPLIT_NAMES}
    if splits and "train" not in splits.values():
        faults.append(Fault(str(root), f"a folder {min(splits)!r} and no folder 'train'", "name that one 'train'"))
    for name in sorted(set(found) - set(splits)) if splits else ():
        hint = did_you_mean(name, SPLIT_NAMES) or "beside train there may be val and test"
        faults.append(Fault(on_one_line(name), "neither train, val nor test", hint))
    tops = [(found[name], split) for name, split in splits.items()] or [(root, "train")]
    known = [top for top, split in tops if split != "test"] or [top for top, _ in tops]
    classes = class_order(path.name for top in known for path in _folders(top))
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
