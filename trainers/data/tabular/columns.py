"""The columns of a table that are categories: those that the recipe names, or else all that look like one."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from trainers.data.class_names import WHOLE, class_order
from trainers.data.images import EXTENSIONS
from trainers.data.table import SPLIT_NAMES, Remarks
from trainers.data.tabular import cells
from trainers.data.tabular.csv_file import Sheet
from trainers.data.tabular.paths import fields
from trainers.data.validation import leaving_out, listed, mapping, word
from trainers.data_config import DataConfig
from trainers.support.errors import Fault
from trainers.support.text import did_you_mean

PATHS = {"path", "paths", "file", "filename", "filepath", "image", "imagename", "imagepath", "imageid", "img", "id"}
UNLIKELY = 10  # fewer different values are never too many: small tables are not judged
SPARSE = 10  # whole numbers are class names from this many rows per value on, or with gaps up to this
LONG = 80  # characters, in the median, above which values are text
SPLIT = "holds the names of splits"
SPLITS = "is named like a split flag or fold"
LISTS = "holds several answers in lists such as"
SEVERAL = "holds several answers separated by"
SEPARATORS_OF_ANSWERS = ("|", ";", ",")
DEFAULT = DataConfig(root="")
NUMBER = re.compile(r"[$€£¥]? ?[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]+)? ?([$€£¥%]|EUR|USD|GBP)?")
PRICE = re.compile(r"[$€£¥]? ?[+-]?[0-9]+,[0-9]{2} ?([$€£¥%]|EUR|USD|GBP)?")  # two decimals, as answers rarely are
DATE = re.compile(
    r"([0-9]{4}([-/.])[0-9]{1,2}(\2[0-9]{1,2})?|[0-9]{1,2}([-/.])[0-9]{1,2}\4([0-9]{4}|[0-9]{2}))([T ].*)?"
)
TOKEN = re.compile(r"(?=.*[0-9])([0-9a-f]{32,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)
SPLITTING = re.compile(
    r"(k_?)?folds?|(is|in|for)_(train(ing)?|val(id(ation)?)?|test(ing)?)|(train|val(id)?|test)_?flag"
)


@dataclass(frozen=True)
class Question:
    """A category as requested: one class per cell, several per cell, or a column of 0 and 1 per class."""

    name: str
    columns: tuple[str, ...]
    kind: Literal["one", "cells", "flags"] = "one"


def questions(config: DataConfig, sheet: Sheet, remarks: Remarks) -> list[Question]:
    """Return the categories in their order; a doubtful column is a fault and left out."""
    _refuse_names(config, sheet, remarks.faults)
    several = [_several(name, flags) for name, flags in config.several.items()]
    given = {one.name: one for one in several if set(one.columns) <= set(sheet.header)}
    if config.categories is not None:
        ordered = [name for name in dict.fromkeys((*config.categories, *given)) if name not in taken(config, sheet)]
        found = [given.get(name) or Question(name, (name,)) for name in ordered if {name} <= {*given, *sheet.header}]
        remarks.notes.extend(_hidden_sets(sheet, found))
        return found
    flags = {name: one for one in given.values() for name in one.columns}
    left_out = {*taken(config, sheet), *(config.ignore or ())}
    names = [name for name in dict.fromkeys(sheet.header) if name and name not in left_out]
    if not names:
        help = f"a category is any column that data does not use otherwise; the columns are {_shown(sheet.header)}"
        remarks.faults.append(Fault(sheet.head, "no category", help))
    sure = _sure(config, sheet, [name for name in names if name not in flags], remarks)
    found = [flags.get(name) or Question(name, (name,)) for name in names if name in flags or name in sure]
    if sheet.declared:
        remarks.notes.extend(_hidden_sets(sheet, list(dict.fromkeys(found))))
    return list(dict.fromkeys(found))


def _several(name: str, flags: tuple[str, ...]) -> Question:
    return Question(name, flags, "flags") if flags else Question(name, (name,), "cells")


def taken(config: DataConfig, sheet: Sheet) -> dict[str, str]:
    """Return the columns that are not categories because a key of `data` names them, with that key."""
    keys = {"path": config.path, "split": config.split, "group": config.group, "sample_weight": config.sample_weight}
    return {name: key for key, name in keys.items() if name in sheet.header and name is not None}


def _sure(config: DataConfig, sheet: Sheet, names: list[str], remarks: Remarks) -> set[str]:
    """Return the columns that look like categories; each of the others is a fault, unless a path is made from it."""
    if not sheet.whole or sheet.declared:
        return set(names)
    doubts = {name: why for name in names if (why := _doubt(_known(sheet.counts(name), config.spellings)))}
    doubts |= _beside(sheet, [name for name in names if name not in doubts])
    sure = [name for name in names if name not in doubts]
    for field in fields(config.path, sheet.header):
        doubts.pop(field, None)
    others = [name for name, why in doubts.items() if why not in (SPLIT, SPLITS)]
    for name, why in doubts.items():
        without = leaving_out(config, others if name in others else doubts)
        help = _remedy(config, sheet, name, why, without, [*sure, name])
        remarks.faults.append(Fault(sheet.head, f"{name!r} {why}: is it a category?", help))
    return set(sure)


def _remedy(config: DataConfig, sheet: Sheet, name: str, why: str, without: str, names: list[str]) -> str:
    """Return what to write about a doubtful column."""
    if why == SPLIT and (config.split not in sheet.header):
        return f"write data: {{split: {word(name)}{_meant(sheet.column(name))}}}; to leave it out, write {without}"
    if why == SPLITS:
        split = f"data: {{split: {word(name)}, split_values: {{{meaning(name, sheet.counts(name))}}}}}"
        return f"to split by it, write {split}; to leave it out, {without}; to use it as a category, {_naming(names)}"
    if why.startswith((SEVERAL, LISTS)):
        separator = config.multi_separator if why.startswith(LISTS) else why[len(SEVERAL) + 1]
        more = f", multi_separator: {word(separator)}" * (separator != config.multi_separator)
        columns = [*(config.multi or ()), name] if not isinstance(config.multi, dict) else {**config.multi, name: ()}
        multi = listed(columns) if isinstance(columns, list) else mapping(columns)
        return f"for several answers in a cell, write data: {{multi: {multi}{more}}}; for one, {_naming(names)}"
    if name.startswith("Unnamed:"):
        return f"pandas' index? write the table with index=False, or write {without}"
    return f"if not, write {without}, else {_naming(names)}"


def _naming(names: Sequence[str]) -> str:
    return f"data: {{categories: {listed(names)}}}"


def _meant(column: list[str]) -> str:
    """Return the key split_values for the names of splits that are not known."""
    values = {value for value in column if value and value.lower() not in SPLIT_NAMES}
    meant = {
        value: next((SPLIT_NAMES[one] for one in SPLIT_NAMES if one in value.lower()), "train") for value in values
    }
    entries = ", ".join(f"{word(value)}: {meant[value]}" for value in sorted(meant))
    return f", split_values: {{{entries}}}" if meant else ""


def meaning(name: str, values: Iterable[str]) -> str:
    """Guess the splits that the values of a column of this name stand for: is_valid, or the number of a fold."""
    ordered = list(class_order(filter(None, values)))
    named = next((SPLIT_NAMES[one] for one in SPLIT_NAMES if one in name.lower()), "val")
    flags = [cells.flag(value) for value in ordered]
    if {*flags} == {0, 1} and len(ordered) == 2:
        split = {1: named, 0: "val" if named == "train" else "train"}
        return ", ".join(f"{word(value)}: {split[flag or 0]}" for value, flag in zip(ordered, flags, strict=True))
    return ", ".join(f"{word(value)}: {'train' if k else 'val'}" for k, value in enumerate(ordered[:UNLIKELY]))


def _known(counts: Mapping[str, int], spellings: Collection[str]) -> dict[str, int]:
    return {cell: count for cell, count in counts.items() if cell.lower() not in spellings}


def _hidden_sets(sheet: Sheet, found: Sequence[Question]) -> Iterator[Fault]:
    """Yield a note on each category of one answer whose cells look like several."""
    for one in found:
        if one.kind == "one" and sheet.whole and (why := _sets(sheet.counts(one.name))):
            help = "each such cell is read as one class; for several answers, use data.multi"
            yield Fault(sheet.head, f"{one.name!r} {why}", help)


def _shown(header: Sequence[str]) -> str:
    return ", ".join(filter(None, header))


def _refuse_names(config: DataConfig, sheet: Sheet, faults: list[Fault]) -> None:
    """Add faults for names that the recipe has and the header lacks, that clash, or that the header repeats."""
    header, flags = sheet.header, [name for names in config.several.values() for name in names]
    columns: dict[str, Iterable[str | None]] = {
        "split": [config.split] * (config.split not in (None, DEFAULT.split)),
        "group": [config.group] * (config.group is not None),
        "sample_weight": [config.sample_weight] * (config.sample_weight is not None),
        "categories": [name for name in config.categories or () if name not in config.several],
        "ignore": config.ignore or (),
        "classes": [name for name in config.classes or () if name not in config.several],
        "multi": [*(name for name, those in config.several.items() if not those), *flags],
    }
    used = taken(config, sheet)
    for key, given in columns.items():
        for name in filter(None, given):
            if key in ("categories", "multi", "classes") and name in used:
                help = f"data.{used[name]} uses it: leave it out here"
                faults.append(Fault(f"data.{key}", f"{name!r} cannot be a category", help))
            elif name not in header:
                help = did_you_mean(name, header) or f"the columns are {_shown(header)}"
                what = f"no column {name!r} in {sheet.name}"
                faults.append(Fault(f"data.{key}", what, help))
    for key, names in (("multi", {*config.several, *flags}), ("classes", set(config.classes or ()))):
        for name in sorted(set(config.ignore or ()) & names):
            faults.append(Fault("data.ignore", f"{name!r} is in data.{key}, too", "keep it in one of them"))
    for name in [name for name in config.several if config.several[name] and name in header]:
        faults.append(Fault("data.multi", f"{name!r} is also a column", "give the category another name"))
    for name in dict.fromkeys(header):
        if name and header.count(name) > 1:
            what = f"{header.count(name)} columns are called {name!r}"
            faults.append(Fault(sheet.head, what, "give each column its own name"))


def refuse_unnamed(sheet: Sheet, remarks: Remarks) -> None:
    """Add a fault for each column without a name, or a note if it is blank throughout."""
    blank = 0
    for at in [at for at, column in enumerate(sheet.header) if not column]:
        values = {cells[at] for _, cells in sheet.records}
        if sheet.records and values == {""}:
            blank += 1
            continue
        help = (
            "if it is pandas' index, write the table with index=False; else give it a name" if at == 0 else "name it"
        )
        remarks.faults.append(Fault(sheet.head, f"column {at + 1} has no name", help))
    if blank:
        remarks.notes.append(Fault(sheet.name, f"{blank} blank column{'s' * (blank != 1)} without a name: left out"))


def instead_of_path(sheet: Sheet) -> str:
    """Return the help for a header without 'path': the column that may hold the paths."""
    first = "the first line must name the columns: path,split,<category>,..."
    if any(cell.lower().endswith(EXTENSIONS) for cell in sheet.header):
        return f"the first line is already an image: put the column names above it, {first.partition(': ')[2]}"
    held = path_columns(sheet)
    named = [name for name in sheet.header if re.sub("[^a-z]", "", name.lower()) in PATHS]
    near = difflib.get_close_matches("path", sheet.header, 1)
    meant = next(iter((*held, *named, *near)), None)
    return first if meant is None else f"if {meant!r} holds the paths, write data: {{path: {word(meant)}}}"


def path_columns(sheet: Sheet) -> list[str]:
    """Return the columns most of whose first cells end like images."""
    return [name for name in sheet.header if name and _holds_paths(sheet, name)]


def _holds_paths(sheet: Sheet, name: str) -> bool:
    values = sheet.column(name)[:100]
    return 2 * sum(value.lower().endswith(EXTENSIONS) for value in values) > len(values)


def _doubt(given: Mapping[str, int]) -> str:
    """Describe what in a column's known values speaks against a category, with figures; empty if nothing does.

    `given` maps each value to its number of rows.
    """
    values, rows = set(given), sum(given.values())
    splits = {SPLIT_NAMES.get(value.lower()) for value in values}
    words = (re.sub("(?<=[a-z])(?=[A-Z])", " ", value).lower() for value in values)
    if len(splits) > 1 and (
        None not in splits or all(SPLIT_NAMES.keys() & re.split(r"[\W_]+", word) for word in words)
    ):
        return SPLIT
    if why := _sets(given):
        return why
    kind = _kind(values)
    if kind or _too_many(values, rows):
        return f"has {len(values)} values in {rows} rows{kind}"
    return ""


def _sets(given: Mapping[str, int]) -> str:
    """Describe the separator of answers in these cells, and how many have it; empty if they are single answers.

    Separated answers are no more numerous than the different cells: they occur again, alone or beside others.
    """
    values = set(given)
    lists = [value for value in values if value[:1] + value[-1:] == "[]"]
    if 2 * sum(given[value] for value in lists) > sum(given.values()):
        return f"{LISTS} {max(lists, key=len)!r}"
    for separator in SEPARATORS_OF_ANSWERS:
        joint = {value: cells.answers(value, separator) for value in values if separator in value}
        joint = {value: parts for value, parts in joint.items() if len(parts) > 1}
        if not joint or all(map(PRICE.fullmatch, values)):
            continue
        parts = {part for those in joint.values() for part in those}
        alone = values - joint.keys()
        filled, rows = sum(given.values()), sum(given[value] for value in joint)
        sure = separator != "," or 2 * rows > filled or parts <= alone  # names contain commas as well
        if len(parts | alone) <= len(values) and sure:
            return f"{SEVERAL} {separator} in {rows} of {filled} cells, such as {min(joint)!r}"
    return ""


def _beside(sheet: Sheet, names: list[str]) -> dict[str, str]:
    """Describe the columns that other columns make doubtful: folds, split flags, or another's classes again."""
    splitting = {name for name in names if SPLITTING.fullmatch(name.lower())}
    doubts = dict.fromkeys(splitting, SPLITS) if splitting < set(names) else {}
    partitions: dict[tuple[int, ...], str] = {}
    for name in names:
        codes: dict[str, int] = {}
        column = tuple([codes.setdefault(value, len(codes)) for value in sheet.column(name)])
        first = partitions.setdefault(column, name)
        if first != name and len(column) >= SPARSE and len(codes) > 1:
            doubts[name] = f"has the classes of {first!r} under other names"
    return doubts


def _kind(values: set[str]) -> str:
    """Describe what kind of values these all are, if not classes, with the first that shows it."""
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
    """True if these are too many values to be classes in `rows` rows.

    A class has two rows on average, or ten if the values are numbers with wide gaps, such as prices and article IDs.
    """
    if len(values) < UNLIKELY:
        return False
    if 2 * len(values) > rows:
        return True
    if SPARSE * len(values) <= rows or not all(map(WHOLE.fullmatch, values)):
        return False
    numbers = [float(value) for value in values]
    return max(numbers) - min(numbers) > SPARSE * len(values)
