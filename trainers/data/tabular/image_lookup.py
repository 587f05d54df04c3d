"""Find the images of a table that names them without their extension or their folder."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from trainers.data.folder_tree import is_service, unpacking
from trainers.data.images import EXTENSIONS
from trainers.data.table import Remarks, Row
from trainers.data.validation import unfit
from trainers.support.errors import Fault, folded
from trainers.support.files import form

FIRST = 20  # images to look for before none is considered to be there
HELP = "write the paths relative to data.root, with folder and extension"


def located(root: Path, name: str, rows: list[Row], remarks: Remarks) -> list[Row]:
    """Return the rows with the paths of their images, if only one can be meant; each folder is listed once.

    Nothing is looked for if the first image, and the first one with a non-ASCII path, exist as listed.
    """
    firsts = [*rows[:1], *[row for row in rows if not row.path.isascii()][:1]]
    if all(unfit(row.path) or os.path.lexists(f"{root}/{row.path}") for row in firsts):
        return rows
    find, found = _finder(root), list[Row]()
    doubtful, example, completed = list[tuple[str, Fault]](), "", 0
    for row in rows:
        path, *others = find(row.path)
        if others:
            doubtful.append(("place", Fault(row.where, f"{row.path!r} could be {path!r} or {others[0]!r}", HELP)))
            continue
        if path != row.path:
            completed += 1
            example = example or f"{row.path!r} is read as {path!r}"
        found.append(row if path == row.path else replace(row, path=path))
    remarks.faults.extend((*folded(doubtful), *_packed(root, found)))
    if completed:
        remarks.notes.append(Fault(name, f"paths are completed in {completed} rows: {example}"))
    return found


def _packed(root: Path, rows: list[Row]) -> Iterator[Fault]:
    """Yield a fault for an archive next to the table if the images are missing."""
    if not rows or any(os.path.lexists(f"{root}/{row.path}") for row in rows[:FIRST]):
        return
    beside = sorted(root.iterdir())
    packed = [path for path in beside if unpacking(path) and path.is_file()]
    inside = [path for path in packed if rows[0].path.startswith(f"{path.name}/")]
    unpacked = any(path.is_dir() and not is_service(path.name) for path in beside)
    for path in inside or packed[: not unpacked]:
        yield Fault(str(path), "is an archive, and the images are missing", unpacking(path))


def _finder(root: Path) -> Callable[[str], list[str]]:
    """Return a function that finds the files a path can mean: in its folder, or in that below a folder of `root`."""
    inner = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_service(entry.name))

    @cache
    def names(folder: str) -> dict[str, list[str]]:
        """Return the files of a folder by name, and its images by name without extension."""
        try:
            files = [entry.name for entry in os.scandir(root / folder) if not entry.is_dir()]
        except OSError:
            return {}  # nothing is found there: opening the image will report why
        found: dict[str, list[str]] = {}
        for file in sorted(files):
            if file.lower().endswith(EXTENSIONS):
                found.setdefault(file.rpartition(".")[0], []).append(file)
        alike = {form(name): those for name, those in found.items()} | {form(file): [file] for file in files}
        return alike | found | {file: [file] for file in files}

    def seek(folder: str, name: str) -> list[str]:
        return names(folder).get(name) or names(folder).get(form(name), [])

    def find(path: str) -> list[str]:
        folder, _, name = path.rpartition("/")
        if unfit(path):
            return [path]
        here = [f"{folder}/{file}" if folder else file for file in seek(folder, name)]
        below = (f"{top}/{folder}".rstrip("/") for top in inner)
        return here or [f"{place}/{file}" for place in below for file in seek(place, name)] or [path]

    return find
