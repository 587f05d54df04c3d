"""Predictions in the format of a board's sample submission: its columns, its ids, in its order."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.errors import DataError, EnvironmentFault, Fault, UserError
from sweeper.model import image_files, process
from sweeper.model.find import FoundModel
from sweeper.store import records
from sweeper.store.paths import RunFolder
from sweeper.terminal.output import counting, print_message
from sweeper.text import counted
from trainers import extensions
from trainers.data import layouts
from trainers.data.table import Box
from trainers.support.files import output_file

FEW = 5  # ids to name in a message
MIXED = "some columns are named after categories of the model, others after classes"
Categories = Sequence[Mapping[str, Any]]
Cell = Callable[[Mapping[str, Mapping[str, Any]]], str]
"""Return the cell of a column from a model's predictions for an image, by category."""


@dataclass(frozen=True)
class Asked:
    """Images, the names that a sample may use for them, and the separator of several answers in a cell.

    `cells` has further cells of each image by column, if they come from a table; an id may be one of these.
    """

    images: Sequence[tuple[str, Box | None]]
    paths: Sequence[str]  # as written in the data set or on the command line
    separator: str = "|"
    cells: Sequence[Mapping[str, str]] = ()


def asked(model: FoundModel, words: Sequence[str]) -> Asked:
    """Return the images that `words` name; without words, the test split of the model's study."""
    if words:
        found = image_files.listed(words)
        paths = list(map(str, found.paths))
        return Asked([(path, None) for path in paths], paths, cells=found.cells)
    job = records.read_config(RunFolder(model.path.parent))
    if job is None:
        help = "name the images: sweep export MODEL IMAGES --format csv --like FILE"
        raise UserError(
            "this model belongs to no study here, so it has no test images", where=str(model.path), help=help
        )
    extensions.use(extensions.stored(RunFolder(model.path.parent).extensions, job.recipe.extensions))
    data = job.recipe.data.model_copy(update={"box_margin": 0.0})  # predicting adds it
    table = layouts.read(data)
    rows = table.split("test")
    if not rows:
        raise UserError(
            "the data set has no test images", where=data.root, help="name the images on the command line"
        )
    images = [(str(table.root / row.path), row.box) for row in rows]
    return Asked(images, [row.path for row in rows], data.multi_separator)


def fill(model: FoundModel, wanted: Asked, like: Path, output: Path, device: str | None) -> int:
    """Write the predictions in the format of the sample `like` and return the number of rows.

    Raises DataError for ids without an image or images without an id, and EnvironmentFault for an unreadable image;
    nothing is written then.
    """
    sheet = image_files.sheet(like)
    if len(sheet.header) < 2:
        raise UserError(
            "a sample needs a column of ids and at least one more", where=str(like), help="check that it is a CSV"
        )
    ids = [cells[0] for _, cells in sheet.records]
    places = order(ids, wanted.paths, like, wanted.cells)
    answers = process.predictions(model, [wanted.images[k] for k in places], device=device, boxes=_boxes(wanted))
    about = next(answers)["model"]
    if about["boxes"] and not _boxes(wanted):
        print_message("this model was trained on the content of boxes, but whole images are used here")
    cells = columns(sheet.header[1:], about["categories"], wanted.separator, like)
    out = io.StringIO()
    writer = csv.writer(out, delimiter=sheet.separator, lineterminator="\n")
    writer.writerow(sheet.header)
    with counting("predicting") as count:
        for number, (ident, found) in enumerate(zip(ids, answers, strict=True), 1):
            if "unreadable" in found:
                raise EnvironmentFault(f"an image cannot be read: it {found['unreadable']}", where=found["path"])
            said = {one["category"]: one for one in found["categories"]}
            writer.writerow([ident, *(cell(said) for cell in cells)])
            count(number, len(ids))
    with output_file(output) as file:
        file.write(out.getvalue().encode())
    return len(ids)


def _boxes(wanted: Asked) -> bool:
    return any(box for _, box in wanted.images)


# ------------------------------------------------------------------------------------------------ columns
def columns(header: Sequence[str], categories: Categories, separator: str, like: Path) -> list[Cell]:
    """Return the cell function of each column.

    Columns named after categories get answers, as does a single column if the model has a single category. Columns
    that are all named after classes get probabilities. Raises UserError for other columns.
    """
    names = {one["name"] for one in categories}
    if set(header) <= names:
        return [_answers(name, separator) for name in header]
    owners = Counter(name for one in categories for name in one["classes"])
    if all(owners[name] == 1 for name in header):
        return [_probability(name, categories) for name in header]
    if len(header) == len(names) == 1:
        return [_answers(categories[0]["name"], separator)]
    wrong = [name for name in header if name not in names and owners[name] != 1]
    what = f"column {wrong[0]!r} is neither a category of the model nor a class of one category" if wrong else MIXED
    of = [f"{one['name']} ({_few(one['classes'])})" for one in categories]
    raise UserError(
        what, where=str(like), help=f"it has {'; '.join(of)}; name all columns except the first like that"
    )


def _answers(category: str, separator: str) -> Cell:
    return lambda said: separator.join(said[category]["answers"])


def _probability(name: str, categories: Categories) -> Cell:
    (category,) = (one["name"] for one in categories if name in one["classes"])

    def cell(said: Mapping[str, Mapping[str, Any]]) -> str:
        (found,) = (one["probability"] for one in said[category]["classes"] if one["class"] == name)
        return f"{found:.9g}"

    return cell


# ------------------------------------------------------------------------------------------------ ids
def _number(path: str) -> str:
    stem = Path(path).stem
    return str(int(stem)) if stem.isdecimal() else stem


NAMES: tuple[Callable[[str], str], ...] = (str, lambda path: Path(path).name, lambda path: Path(path).stem, _number)
"""Ways in which an id can name an image: its path, its file name, with or without suffix, or the number in it."""


def order(ids: Sequence[str], paths: Sequence[str], like: Path, cells: Sequence[Mapping[str, str]] = ()) -> list[int]:
    """Return the index of the image that each id names, by its path or a cell of its row, whichever fits most ids;
    DataError if one fails.
    """
    if again := [path for path, count in Counter(paths).items() if count > 1]:
        fault = Fault(str(like), _named("image", "is listed twice", again))
        raise DataError([fault], help="name each image once on the command line")
    ways = [{way(path): k for k, path in enumerate(paths)} for way in NAMES]
    ways += [{row.get(name, ""): k for k, row in enumerate(cells)} for name in (cells[0] if cells else ())]
    best = max(
        (way for way in ways if len(way) == len(paths)), key=lambda way: sum(one in way for one in ids), default={}
    )
    twice = [one for one, count in Counter(ids).items() if count > 1]
    lacking = [one for one in ids if one not in best]
    known = set(ids)
    beyond = [path for name, path in zip(best, paths, strict=True) if name not in known] if best else list(paths)
    found = [("id", "is listed twice", twice), ("id", "has no image", lacking), ("image", "has no id", beyond)]
    faults = [Fault(str(like), _named(kind, what, which)) for kind, what, which in found if which]
    if faults:
        help = (
            "an id is the path of an image, its file name with or without suffix, or a cell of its row:"
            " sweep export MODEL TEST.csv --format csv --like FILE takes images and ids from a table"
        )
        raise DataError(faults, help=help)
    return [best[one] for one in ids]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{', '.join(names[:FEW])}{more}"


def _named(kind: str, what: str, which: Sequence[str]) -> str:
    """Return a text such as `3 ids have no image: a, b, c`."""
    verb = what if len(which) == 1 else what.replace("has ", "have ").replace("is ", "are ")
    return f"{counted(len(which), kind)} {verb}: {_few(which)}"
