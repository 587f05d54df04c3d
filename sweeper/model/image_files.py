"""Images named on the command line (files, folders, lists of paths), and their boxes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sweeper.errors import DataError, Fault, UserError, line
from trainers.data.folder_tree import Tree, by_extension
from trainers.data.images import UNREAD
from trainers.data.table import Box, Remarks
from trainers.data.tabular import csv_file
from trainers.data.tabular.columns import path_columns
from trainers.data.tabular.csv_file import Sheet
from trainers.support.files import expanded

LISTS, TABLES = (".txt",), (".csv", ".tsv")
SIDES = ("left", "top", "right", "bottom")


@dataclass
class ImageFiles:
    """Paths of images in order, and one line per kind of file in a folder that was left out.

    `cells` has the further cells of each image in a CSV by column; empty for any other image.
    """

    paths: list[Path] = field(default_factory=list)
    cells: list[Mapping[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def listed(words: Sequence[str]) -> ImageFiles:
    """Return the images that `words` name: files, all images below a folder, or those listed in a text file or CSV.

    Paths in a list are relative to its folder. Raises UserError if a path does not exist or no image is found.
    """
    found = ImageFiles()
    for word in words:
        path = path_of(word)
        if path.is_dir():
            _add_folder(path, found)
        elif path.suffix.lower() in TABLES:
            _add_table(path, found)
        elif path.suffix.lower() in LISTS:
            found.paths += [path.parent / name for name in _names(path)]
        elif path.exists():
            found.paths.append(path)
        else:
            raise UserError("there is no such file or folder", where=word, help="check the path of the images")
        found.cells += [{}] * (len(found.paths) - len(found.cells))
    if not found.paths:
        raise UserError("there are no images", where=" ".join(words), help="; ".join(found.left_out))
    return found


def refuse_overwriting(option: str, made: Path, read: Iterable[Path]) -> None:
    """Raise UserError if the file that `option` names is one of those that are read."""
    if made.is_file() and any(path.exists() and path.samefile(made) for path in read):
        what = f"{option} would overwrite a file that is read here"
        raise UserError(what, where=str(made), help="choose another name")


def path_of(word: str) -> Path:
    """Return the path that a word of the command line names. Raises UserError if ~ names an unknown user."""
    try:
        return Path(expanded(word))
    except ValueError as error:
        raise UserError(str(error), where=word, help="write ./ in front of a name that starts with ~") from None


def _add_folder(path: Path, found: ImageFiles) -> None:
    tree, remarks = Tree(path), Remarks()
    look = tree.look(path)
    found.paths += [path / name for name in look.images]
    tree.remark(remarks, Counter())
    unread = Counter({ending: count for ending, count in look.others.items() if ending in UNREAD})
    if unread:
        remarks.faults.append(Fault(str(path), f"left out: {by_extension(unread)}"))
    found.left_out += [line(fault) for fault in remarks.faults]


def _add_table(path: Path, found: ImageFiles) -> None:
    """Add the images of a CSV: those in its column `path`, else in the only column that holds paths of images."""
    table = sheet(path, ("path",))
    held = path_columns(table)
    name = held[0] if len(held) == 1 and "path" not in table.header else "path"
    _refuse_lacking(path, table, (name,))
    found.paths += [path.parent / cell for cell in table.column(name)]
    found.cells += [dict(zip(table.header, cells, strict=True)) for _, cells in table.records]


def _names(path: Path) -> list[str]:
    """Return the paths in a list: the lines of a text file."""
    content = _content(path)
    with suppress(UnicodeDecodeError):
        text = content.decode(csv_file.encoding_of(content)[0])
        if "\0" not in text:  # as in UTF-16 without a byte order mark
            return [one.strip() for one in text.splitlines() if one.strip()]
    raise UserError("this list is not UTF-8", where=str(path), help="save it as UTF-8")


def boxes(path: Path) -> dict[Path, Box]:
    """Return the boxes in a CSV with the columns path, left, top, right, bottom, by resolved path.

    Pixels count as in Pillow: right and bottom are the first ones outside. Raises DataError with every wrong line.
    """
    table, faults, found = _sheet(path, ("path", *SIDES)), list[Fault](), dict[Path, Box]()
    columns = [table.column(side) for side in SIDES]
    for (where, _), name, *cells in zip(table.records, table.column("path"), *columns, strict=True):
        box = _box(cells)
        if box is None:
            written = ", ".join(cells)
            faults.append(
                Fault(
                    f"{path.parent / where}",
                    f"not a box: {written}",
                    "needs whole pixels, left < right, top < bottom",
                )
            )
        else:
            found[(path.parent / name).resolve()] = box
    if faults:
        raise DataError(faults)
    return found


def _box(cells: Sequence[str]) -> Box | None:
    try:
        left, top, right, bottom = (int(cell) for cell in cells)
    except ValueError:
        return None
    return (left, top, right, bottom) if left < right and top < bottom else None


def sheet(path: Path, columns: Sequence[str] = ()) -> Sheet:
    """Read a CSV of any dialect; `columns` may be in it. Raises UserError if unreadable, DataError if faulty."""
    remarks = Remarks()
    found = csv_file.parsed(path.name, _content(path), columns, remarks)
    if remarks.faults:
        raise DataError([Fault(str(path.parent / one.where), one.what, one.help) for one in remarks.faults])
    return found


def _sheet(path: Path, columns: Sequence[str]) -> Sheet:
    found = sheet(path, columns)
    _refuse_lacking(path, found, columns)
    return found


def _refuse_lacking(path: Path, table: Sheet, columns: Sequence[str]) -> None:
    if lacking := [name for name in columns if name not in table.header]:
        help = f"it has {', '.join(table.header)}; it needs {', '.join(columns)}"
        raise UserError(f"no column {lacking[0]!r}", where=str(path), help=help)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"this list cannot be read: {error.strerror}", where=str(path), help="check the path"
        ) from None


def with_boxes(paths: Sequence[Path], given: dict[Path, Box]) -> Iterator[tuple[str, Box | None]]:
    """Yield each path with its box, if there is one."""
    for path in paths:
        yield str(path), given.get(path.resolve()) if given else None
