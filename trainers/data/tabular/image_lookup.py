"""Where the images of a table lie that names them without their ending or their folder."""

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

FIRST = 20  # images that are looked for before it is said that none is there
HELP = "write the paths from data.root on, with folder and ending"


def located(root: Path, name: str, rows: list[Row], remarks: Remarks) -> list[Row]:
    """The rows with the paths of their images, where only one can be meant; each folder is listed once.

    Nothing is looked for where the first image is in its place, nor the first whose path is not in ASCII.
    """
    firsts = [*rows[:1], *[row for row in rows if not row.path.isascii()][:1]]
    if all(unfit(row.path) or os.path.lexists(f"{root}/{row.path}") for row in firsts):
        return rows
    find, found = _finder(root), list[Row]()
    doubtful, example, completed = list[tuple[str, Fault]](), "", 0
    for row in rows:
        path, *others = find(row.path)
        if others:
            doubtful.append(("place", Fault(row.where, f"{row.path!r} can be {path!r} or {others[0]!r}", HELP)))
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
    """A fault for an archive beside the table where the images are not there."""
    if not rows or any(os.path.lexists(f"{root}/{row.path}") for row in rows[:FIRST]):
        return
    beside = sorted(root.iterdir())
    packed = [path for path in beside if unpacking(path) and path.is_file()]
    inside = [path for path in packed if rows[0].path.startswith(f"{path.name}/")]
    unpacked = any(path.is_dir() and not is_service(path.name) for path in beside)
    for path in inside or packed[: not unpacked]:
        yield Fault(str(path), "is an archive, and the images are not there", unpacking(path))


def _finder(root: Path) -> Callable[[str], list[str]]:
    """Finds what a path can mean: a file in its folder, or in that folder of one of the folders in `root`."""
    inner = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_service(entry.name))

    @cache
    def names(folder: str) -> dict[str, list[str]]:
        """The files of a folder by their names, and its images by their names without the ending."""
        try:
            files = [entry.name for entry in os.scandir(root / folder) if not entry.is_dir()]
        except OSError:
            return {}  # nothing is found there: whoever opens the image is told why
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
