"""The layout `table`: a CSV file with a column of paths, one of splits, and one for each category."""

from collections.abc import Sequence
from pathlib import Path

from trainers.config import DataConfig
from trainers.data import columns, csv_file, validation
from trainers.data.class_names import class_order
from trainers.data.csv_file import Record, Sheet
from trainers.data.image_lookup import located
from trainers.data.table import SPLIT_NAMES, Category, Found, Remarks, Row
from trainers.data.validation import did_you_mean
from trainers.support.errors import Fault, folded

BREAK = "\n"  # in a cell that has to be one line: a quote that was opened took the next lines in
Causes = list[tuple[str, Fault]]


def read(config: DataConfig, root: Path, remarks: Remarks) -> Found:
    """Every row of the file `labels` in `root`; what is wrong goes to `remarks`. Raises DataError without a file."""
    validation.boxes(config, remarks.faults)
    sheet = csv_file.read(root, config.labels, remarks)
    if "path" not in sheet.header:
        if sheet.whole:
            what, help = "no column 'path'", columns.instead_of_path(sheet)
            remarks.faults.append(Fault(f"{config.labels}:1", what, help))
        return root, (), []
    columns.refuse_unnamed(config.labels, sheet, remarks)
    names = columns.categories(config, sheet, remarks)
    groups = tuple(Category(name, _classes(sheet.column(name))) for name in names)
    table = _Table(config, sheet, groups, _splits(config, sheet, remarks))
    causes: Causes = []
    rows = [row for record in sheet.records if (row := table.row(record, causes))]
    remarks.faults.extend(folded(causes))
    return root, groups if sheet.whole else (), located(root, config.labels, rows, remarks)


def _classes(column: list[str]) -> tuple[str, ...]:
    return class_order(value for value in set(column) if value and BREAK not in value)


def _splits(config: DataConfig, sheet: Sheet, remarks: Remarks) -> int | None:
    """Where in a record the split stands; a column that is blank throughout is none."""
    if "split" not in sheet.header:
        return None
    at = sheet.header.index("split")
    blank = [where for where, cells in sheet.records if not cells[at]]
    if blank and len(blank) == len(sheet.records):
        remarks.notes.append(Fault(config.labels, f"the column 'split' is blank: {config.val_share:g} becomes val"))
        return None
    if blank:
        what = f"no split in {len(blank)} of {len(sheet.records)} rows, the first {blank[0]}"
        help = "fill these cells; or leave the whole column blank, and a share becomes val"
        remarks.faults.append(Fault(config.labels, what, help))
    return at


class _Table:
    """Makes rows of records; equal labels are one object, for a table may have a million rows."""

    def __init__(self, config: DataConfig, sheet: Sheet, groups: Sequence[Category], split: int | None) -> None:
        places = {name: k for k, name in enumerate(sheet.header)}
        self.config, self.tall, self.path, self.split = config, sheet.tall, places["path"], split
        self.labels = [(g.name, places[g.name], {label: k for k, label in enumerate(g.classes)}) for g in groups]
        self.used = [self.path, *[at for _, at, _ in self.labels], *([] if split is None else [split])]
        self.known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def row(self, record: Record, causes: Causes) -> Row | None:
        """One image; what is wrong with it goes to `causes`, and the path of such a row is looked at nevertheless."""
        where, cells = record
        if where in self.tall and any(BREAK in cells[at] for at in self.used):
            causes.append(("break", Fault(where, "a cell runs over several lines", "is a quote not closed here?")))
            return None
        given = "train" if self.split is None else cells[self.split]
        split = SPLIT_NAMES.get(given) or SPLIT_NAMES.get(given.lower())
        if split is None and given:
            help = did_you_mean(given.lower(), SPLIT_NAMES) or "splits are train, val and test"
            causes.append((f"split {given}", Fault(where, f"no split {given!r}", help)))
        labels = tuple([code.get(cells[at], -1) for _, at, code in self.labels])
        if -1 not in labels:
            return Row(cells[self.path], split or given, None, self.known.setdefault(labels, labels), where)
        empty = [name for (name, _, _), label in zip(self.labels, labels, strict=True) if label < 0]
        if split != "test" or len(empty) < len(labels):
            causes += [(f"{split == 'test'} {name}", self._unlabelled(where, name, split)) for name in empty]
        return Row(cells[self.path], split or given, None, None, where)

    def _unlabelled(self, where: str, name: str, split: str | None) -> Fault:
        if split == "test":
            return Fault(where, f"no label for {name}", "rows of test may leave all labels empty")
        leaving = validation.leaving_out(self.config, [name])
        return Fault(where, f"no label for {name}", f"only rows of test may do without; {leaving} drops the column")
