"""The layout `table`: a CSV file with a column of paths, one of splits, and one for each category."""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainers.config import DataConfig
from trainers.data import refused
from trainers.data.refused import did_you_mean
from trainers.data.rows import SPLIT_NAMES, SPLITS, Category, Found, Remarks, Row
from trainers.errors import DataError, Fault
from trainers.files import regular


def read(config: DataConfig, root: Path, remarks: Remarks) -> Found:
    """Every row of the file `labels` in `root`; what is wrong goes to `remarks`. Raises DataError without a file."""
    faults = remarks.faults
    refused.boxes(config, faults)
    records = _records(root, config.labels, faults)
    _, header = next(records, ("", []))
    if "path" not in header:
        near = did_you_mean("path", header) or "the first line names the columns: path,split,<category>,..."
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
        near = did_you_mean(name, [p.name for p in root.glob("*.csv")])
        raise DataError([Fault(str(root / name), f"cannot be read: {error.strerror}", near)]) from None


def _table_row(where: str, record: list[str], columns: _Columns, faults: list[Fault]) -> Row | None:
    given = "train" if columns.split is None else record[columns.split]
    split = SPLIT_NAMES.get(given.lower())
    if split is None:
        hint = did_you_mean(given, SPLITS) or "splits are train, val and test"
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
