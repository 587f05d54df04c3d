"""Which columns of a table are categories: those that the recipe names, else every one that looks like one."""

import difflib
import re
from collections.abc import Sequence
from statistics import median

from trainers.config import DataConfig
from trainers.data.class_names import WHOLE
from trainers.data.csv_file import Sheet
from trainers.data.images import EXTENSIONS
from trainers.data.table import SPLIT_NAMES, Remarks
from trainers.data.validation import did_you_mean, leaving_out, listed
from trainers.support.errors import Fault

OURS = ("path", "split")  # the columns that are no categories
PATHS = {"path", "paths", "file", "filename", "filepath", "image", "imagename", "imagepath", "imageid", "img", "id"}
UNLIKELY = 10  # fewer different values are never too many: small tables are judged by nobody
SPARSE = 10  # rows a value from which on, and gaps up to which, whole numbers are names of classes
LONG = 80  # characters of a value, from which on it is text
SPLIT = "holds the names of splits"
NUMBER = re.compile(r"[$€£¥]? ?[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]+)? ?([$€£¥%]|EUR|USD|GBP)?")
DATE = re.compile(
    r"([0-9]{4}([-/.])[0-9]{1,2}(\2[0-9]{1,2})?|[0-9]{1,2}([-/.])[0-9]{1,2}\4([0-9]{4}|[0-9]{2}))([T ].*)?"
)
TOKEN = re.compile(r"(?=.*[0-9])([0-9a-f]{32,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)
SPLITTING = re.compile(
    r"(k_?)?folds?|(is|in|for)_(train(ing)?|val(id(ation)?)?|test(ing)?)|(train|val(id)?|test)_?flag"
)


def categories(config: DataConfig, sheet: Sheet, remarks: Remarks) -> list[str]:
    """Names of the columns that are categories, in their order; a column that is doubtful is a fault and left out."""
    where, taken = f"{config.labels}:1", (*OURS, *(config.ignore or ()))
    names = [name for name in dict.fromkeys(sheet.header) if name and name not in taken]
    _refuse_names(config, sheet.header, remarks.faults)
    if config.categories is not None:
        return [name for name in config.categories if name in names]
    if not names:
        remarks.faults.append(Fault(where, "no category", "every column beside path and split is one"))
    doubts = {name: why for name in names if sheet.whole and (why := _doubt(sheet.column(name)))}
    doubts |= _beside(sheet, [name for name in names if name not in doubts]) if sheet.whole else {}
    sure, without = [name for name in names if name not in doubts], leaving_out(config, doubts)
    for name, why in doubts.items():
        help = f"if not, write {without}, else data: {{categories: {listed([*sure, name])}}}"
        if why == SPLIT and "split" not in sheet.header:
            help = f"call it 'split' in the first line, or write {without}"
        if name.startswith("Unnamed:"):
            help = f"pandas' index? write the table with index=False, or {without}"
        remarks.faults.append(Fault(where, f"{name!r} {why}: is it a category?", help))
    return sure


def _refuse_names(config: DataConfig, header: Sequence[str], faults: list[Fault]) -> None:
    """Names that are in the recipe and not in the header, and the other way round."""
    for key, given in (("categories", config.categories), ("ignore", config.ignore)):
        for name in given or ():
            if name in OURS:
                faults.append(Fault(f"data.{key}", f"{name!r} is never a category", "leave it out here"))
            elif name not in header:
                help = did_you_mean(name, header) or f"the columns are {', '.join(filter(None, header))}"
                faults.append(Fault(f"data.{key}", f"no column {name!r} in {config.labels}", help))
    for name in dict.fromkeys(header):
        if name and header.count(name) > 1:
            what = f"{header.count(name)} columns are called {name!r}"
            faults.append(Fault(f"{config.labels}:1", what, "one name a column"))


def refuse_unnamed(name: str, sheet: Sheet, remarks: Remarks) -> None:
    """A fault for each column without a name, and a note for those that are blank throughout."""
    blank = 0
    for at in [at for at, column in enumerate(sheet.header) if not column]:
        values = {cells[at] for _, cells in sheet.records}
        if sheet.records and values == {""}:
            blank += 1
            continue
        help = (
            "if it is pandas' index, write the table with index=False; else give it a name" if at == 0 else "name it"
        )
        remarks.faults.append(Fault(f"{name}:1", f"column {at + 1} has no name", help))
    if blank:
        remarks.notes.append(Fault(name, f"{blank} blank column{'s' * (blank != 1)} without a name: left out"))


def instead_of_path(sheet: Sheet) -> str:
    """What to do about a header without 'path': name the column that holds the paths."""
    first = "the first line names the columns: path,split,<category>,..."
    if any(cell.lower().endswith(EXTENSIONS) for cell in sheet.header):
        return f"the first line is an image already: put the names above it, {first.partition(': ')[2]}"
    held = [name for name in sheet.header if name and _holds_paths(sheet, name)]
    named = [name for name in sheet.header if re.sub("[^a-z]", "", name.lower()) in PATHS]
    near = difflib.get_close_matches("path", sheet.header, 1)
    meant = next(iter((*held, *named, *near)), None)
    return first if meant is None else f"if {meant!r} holds the paths, call it 'path' in the first line"


def _holds_paths(sheet: Sheet, name: str) -> bool:
    values = sheet.column(name)[:100]
    return 2 * sum(value.lower().endswith(EXTENSIONS) for value in values) > len(values)


def _doubt(column: list[str]) -> str:
    """What in a column's values speaks against a category, with its figures; nothing where all is well."""
    given = [value for value in column if value]
    values = set(given)
    splits = {SPLIT_NAMES.get(value.lower()) for value in values}
    words = (re.sub("(?<=[a-z])(?=[A-Z])", " ", value).lower() for value in values)
    if len(splits) > 1 and (
        None not in splits or all(SPLIT_NAMES.keys() & re.split(r"[\W_]+", word) for word in words)
    ):
        return SPLIT
    kind = _kind(values)
    if kind or _too_many(values, len(given)):
        return f"has {len(values)} values in {len(given)} rows{kind}"
    return ""


def _beside(sheet: Sheet, names: list[str]) -> dict[str, str]:
    """Why some columns are perhaps none beside the others: folds, flags of splits, the classes of another again."""
    splitting = {name for name in names if SPLITTING.fullmatch(name.lower())}
    doubts = dict.fromkeys(splitting, "is named like a way to split") if splitting < set(names) else {}
    partitions: dict[tuple[int, ...], str] = {}
    for name in names:
        codes: dict[str, int] = {}
        column = tuple([codes.setdefault(value, len(codes)) for value in sheet.column(name)])
        first = partitions.setdefault(column, name)
        if first != name and len(column) >= SPARSE and len(codes) > 1:
            doubts[name] = f"has the classes of {first!r} under other names"
    return doubts


def _kind(values: set[str]) -> str:
    """Of which kind all the values are, if it is none of classes; with the first that shows it."""
    if not values:
        return ""
    if all(map(DATE.fullmatch, values)):
        return f", dates such as {min(values)!r}"
    if all(map(TOKEN.fullmatch, values)):
        return f", hashes such as {min(values)!r}"
    odd = min((value for value in values if not WHOLE.fullmatch(value)), default="")
    if odd and all(map(NUMBER.fullmatch, values)):
        return f", numbers such as {odd!r}"
    return ", long texts" if median(map(len, values)) > LONG else ""


def _too_many(values: set[str], rows: int) -> bool:
    """Whether so many values in so many rows are no classes: a class has two rows on average, or ten where the values
    are numbers with wide gaps, such as prices and the numbers of articles.
    """
    if len(values) < UNLIKELY:
        return False
    if 2 * len(values) > rows:
        return True
    if SPARSE * len(values) <= rows or not all(map(WHOLE.fullmatch, values)):
        return False
    numbers = [float(value) for value in values]
    return max(numbers) - min(numbers) > SPARSE * len(values)
